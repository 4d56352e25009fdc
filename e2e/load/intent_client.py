"""The gateway's client of the intent server: turns that share calls beside turns that make one each.

`python -m e2e.load.intent_client` (in the environment of `make test-serving`) trains a light model and one with the
sentence encoder, serves each by the intent server on one core, and asks it from another core with 1, 8 and 32 turns at
a time, each asking again once it has its answer. Both sides take turns within one run; CPU time a question is robust on
a shared machine, rates are not.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from chatflow_api.runtime_config import IntentServerConfig
from chatflow_models.intent import IntentModel
from chatflow_models.intent.batching import Limits
from chatflow_runtime.adapters.http_session import open_session
from chatflow_runtime.adapters.remote_classification import LIMITS, Probe, RemoteClassifier
from chatflow_runtime.answerers.guard import Guards
from chatflow_runtime.metrics import Metrics
from prometheus_client import CollectorRegistry

from e2e.load.intent_server import CLIENT_CORE, Server, quantile, running, trained

UNBATCHED = Limits(items=1, size=4000, batches=1024)
SIDES = {"batched": LIMITS, "one a call": UNBATCHED}
TURNS = (1, 8, 32)
ROUNDS = 3
PROBE = "how long does a refund take"


@dataclass
class Figures:
    """What one side does."""

    questions_s: float
    questions_a_call: float
    p50_ms: float
    p99_ms: float
    client_us: float
    """CPU time a question in the client's process."""
    server_us: float
    missed: float
    """Share of the questions that the server refused, or did not answer whole."""

    def text(self) -> str:
        """A row's columns."""
        rate = f"{self.questions_s:>11.0f} {self.questions_a_call:>7.1f}"
        latency = f"{self.p50_ms:>5.1f} ms {self.p99_ms:>5.1f} ms"
        return f"{rate} {latency} {self.client_us:>8.0f} us {self.server_us:>8.0f} us {self.missed:>6.1%}"


async def asked(
    server: Server, texts: Sequence[str], probe: Probe | None, limits: Limits, turns: int, seconds: float
) -> Figures:
    """Figures of so many turns at a time."""
    took_s, missed = list[float](), list[str]()
    async with open_session() as session:
        config = IntentServerConfig(base_url=f"http://127.0.0.1:{server.port}", model="intent", deadline_s=30.0)
        metrics = Metrics(CollectorRegistry())
        client = RemoteClassifier(config, session, metrics, Guards(metrics).of("intent"), limits)
        client.swap(probe)

        async def talk(number: int, end_s: float) -> None:
            for text in itertools.cycle([*texts[number:], *texts[:number]]):
                began_s = time.perf_counter()
                if began_s >= end_s:
                    return
                found = await client.classify(text)
                if found.is_missed or (probe is not None and found.embedding is None):
                    missed.append(text)
                else:
                    took_s.append(time.perf_counter() - began_s)

        await asyncio.gather(*(talk(number, time.perf_counter() + 0.5) for number in range(turns)))
        took_s.clear()
        missed.clear()
        calls, client_s, server_s, began_s = client.calls, time.process_time(), server.cpu_s, time.perf_counter()
        await asyncio.gather(*(talk(number, began_s + seconds) for number in range(turns)))
        count, wall_s = len(took_s), time.perf_counter() - began_s
        return Figures(
            questions_s=count / wall_s,
            questions_a_call=count / (client.calls - calls),
            p50_ms=quantile(took_s, 0.5) * 1000,
            p99_ms=quantile(took_s, 0.99) * 1000,
            client_us=(time.process_time() - client_s) / count * 1e6,
            server_us=(server.cpu_s - server_s) / count * 1e6,
            missed=len(missed) / (count + len(missed)),
        )


def compare(folder: Path, texts: Sequence[str], seconds: float) -> None:
    """All rows for one model."""
    model = IntentModel.load(folder)
    vector = model.predict([PROBE])[0].embedding
    print(f"turns  {'':<10} questions/s  a call      p50      p99  client CPU  server CPU  missed")
    with running("server", "chatflow_models.serving", folder) as server:
        for turns in TURNS:
            found: dict[str, list[Figures]] = {name: [] for name in SIDES}
            for _ in range(ROUNDS):
                for name, limits in SIDES.items():
                    probe = None if vector is None else Probe(PROBE, vector)
                    found[name].append(asyncio.run(asked(server, texts, probe, limits, turns, seconds)))
            for name, figures in found.items():
                row = Figures(*(statistics.median(column) for column in zip(*map(astuple, figures), strict=True)))
                print(f"{turns:>5}  {name:<10} {row.text()}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure both models."""
    parser = argparse.ArgumentParser(prog="python -m e2e.load.intent_client", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    options = parser.parse_args(arguments)
    os.sched_setaffinity(0, {CLIENT_CORE})
    with tempfile.TemporaryDirectory() as work:
        for encoder, words in (("none", "light mode (n-grams)"), ("universal", "with the sentence encoder")):
            folder = Path(work) / encoder
            texts = trained(folder, encoder)
            print(f"\n{words}")
            compare(folder, texts, options.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
