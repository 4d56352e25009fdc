"""A model server with its warm-up sidecar as processes on this machine, as they stand side by side in a pod."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.layout import REPOSITORY

START_S = 600.0
"""vLLM on a busy machine takes minutes."""


class NotStarted(Exception):
    """A server ended, or was not warm in time; the message has the end of its log."""


@dataclass(frozen=True, slots=True)
class Warmed:
    """A server that its sidecar calls ready."""

    port: int
    probe_port: int
    ready_after_s: float

    @property
    def is_ready(self) -> bool:
        """What a kubelet would find."""
        return status_of(self.probe_port, "/readyz") == 200


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def get(port: int, path: str) -> tuple[int, str]:
    """Status and text of an answer; 0 while nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except OSError as error:
        return 0, str(error)
    finally:
        connection.close()


def status_of(port: int, path: str) -> int:
    """The status alone."""
    return get(port, path)[0]


@contextmanager
def process(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process while the context lasts."""
    with log.open("ab") as output:
        running = subprocess.Popen(
            command, env=dict(environment), stdout=output, stderr=output, cwd=REPOSITORY, start_new_session=True
        )
    try:
        yield running
    finally:
        running.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(60)
        # A server that is ended hard leaves its workers behind.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()


@contextmanager
def warmed(
    command: Sequence[str], port: int, environment: Mapping[str, str], folder: Path, **settings: str
) -> Iterator[Warmed]:
    """A server and its sidecar, once that says ready. `settings` are the sidecar's, as `MODEL="tiny"`."""
    probe_port = free_port()
    sidecar = {"URL": f"http://127.0.0.1:{port}/v1", "HOST": "127.0.0.1", "PORT": str(probe_port), **settings}
    named = {**os.environ, **{f"CHATFLOW_WARMUP_{name}": value for name, value in sidecar.items()}}
    log = folder / "server.log"
    began_s = time.monotonic()
    with (
        process(command, environment, log) as server,
        process([sys.executable, "-m", "chatflow_models.warmup"], named, folder / "sidecar.log"),
    ):
        while status_of(probe_port, "/readyz") != 200:
            if server.poll() is not None or time.monotonic() - began_s > START_S:
                raise NotStarted(log.read_text(errors="replace")[-3000:])
            time.sleep(0.02)
        yield Warmed(port, probe_port, time.monotonic() - began_s)
