"""How the server runs, from its command line; KServe's placeholders (`--model_name={{.Name}}`) stand there."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chatflow_models.serving.service import Load

MODEL_DIR = Path("/mnt/models")
"""Where KServe mounts what `storageUri` names."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One server."""

    model_name: str
    model_dir: Path
    wait_s: float
    host: str
    http_port: int
    grpc_port: int
    """0: no gRPC."""
    threads: int
    grace_s: int
    load: Load

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> Settings:
        """The settings; argparse ends the process where they are wrong."""
        load = Load()
        parser = argparse.ArgumentParser(prog="python -m chatflow_models.serving", description=__doc__)
        parser.add_argument("--model_name", default="intent", help="as in the paths of both protocols")
        parser.add_argument(
            "--model_dir", type=Path, default=MODEL_DIR, help="the artefact, or a folder with one in it"
        )
        parser.add_argument("--wait_s", type=float, default=0.0, help="for an artefact that is not there yet")
        parser.add_argument("--host", default="0.0.0.0", help="address to listen on")  # noqa: S104  A pod's own network.
        parser.add_argument("--http_port", type=int, default=8080)
        parser.add_argument("--grpc_port", type=int, default=8081, help="0 for no gRPC")
        parser.add_argument(
            "--threads", type=int, default=_threads(), choices=(0, 1),
            help="1: the model works beside the event loop; 0: on it, which is faster on a single core",
        )  # fmt: skip
        parser.add_argument("--grace_s", type=int, default=30, help="for requests under way, once told to stop")
        parser.add_argument("--max_batch_texts", type=_positive, default=load.items)
        parser.add_argument(
            "--max_batch_ms", type=float, default=load.batch_s * 1000, help="of the model's time, about"
        )
        parser.add_argument("--max_batch_characters", type=_positive, default=load.characters)
        parser.add_argument("--batch_window_ms", type=float, default=load.window_s * 1000)
        parser.add_argument("--max_waiting_texts", type=_positive, default=load.waiting)
        parser.add_argument(
            "--max_wait_ms", type=float, default=load.wait_s * 1000, help="until the model begins with a request"
        )
        given = parser.parse_args(arguments)
        return cls(
            model_name=given.model_name,
            model_dir=given.model_dir,
            wait_s=given.wait_s,
            host=given.host,
            http_port=given.http_port,
            grpc_port=given.grpc_port,
            threads=given.threads,
            grace_s=given.grace_s,
            load=Load(
                items=given.max_batch_texts,
                batch_s=given.max_batch_ms / 1000,
                characters=given.max_batch_characters,
                window_s=given.batch_window_ms / 1000,
                waiting=given.max_waiting_texts,
                wait_s=given.max_wait_ms / 1000,
            ),
        )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number}: give 1 or more")
    return number


def _threads() -> int:
    """0 where this process may use a single core."""
    return 0 if len(os.sched_getaffinity(0)) == 1 else 1
