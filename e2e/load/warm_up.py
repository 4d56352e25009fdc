"""The first request after Ready beside the steady ones, over many starts of a model server with its warm-up sidecar.

`python -m e2e.load.warm_up` starts a server with a planted cold start 15 times and vLLM on CPU 5 times (installed by
`e2e.models.vllm`, 6 GB; `--vllm 0` leaves it out), each time with a sidecar, and asks as soon as that is ready. A
control does the same with a sidecar that is content with one prompt: it has to miss the bar. The status is 1 where a
bar is missed. Times to first token; questions share the flow's system prompt.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chatflow_api.system_prompt import system_prompt
from chatflow_api.v1alpha1 import Locale

from e2e.models import vllm
from e2e.models.processes import free_port, warmed

BAR = 1.2
COLD = 5
STEADY = 20
NAME = "tiny"
SYSTEM = {"role": "system", "content": system_prompt(None, None, Locale.EN)}
WARM = [[SYSTEM, {"role": "user", "content": text}] for text in ("Where is my order?", "How do I get a refund?")]


@dataclass
class Row:
    """What one kind of server was seen to do."""

    name: str
    firsts_s: list[float] = field(default_factory=list)
    steady_s: list[float] = field(default_factory=list)
    ready_s: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """Median of the first ones to median of the steady ones."""
        return statistics.median(self.firsts_s) / statistics.median(self.steady_s)


def first_token_s(port: int, text: str) -> float:
    """Seconds to the first token of an answer, which is read to its end."""
    body = {
        "model": NAME,
        "messages": [SYSTEM, {"role": "user", "content": text}],
        "stream": True,
        "max_tokens": 8,
        "temperature": 0,
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        began_s = time.perf_counter()
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise SystemExit(f"status {answer.status}: {answer.read(500)!r}")
        found: float | None = None
        for line in answer:
            if found is None and line.startswith(b"data:") and b'"content"' in line and b'"content":""' not in line:
                found = time.perf_counter() - began_s
    finally:
        connection.close()
    if found is None:
        raise SystemExit("an answer without a token")
    return found


def one_start(row: Row, command: Sequence[str], port: int, environment: Mapping[str, str], **settings: str) -> None:
    """Start a server and its sidecar, ask as soon as that is ready, then go on asking."""
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        prompts = folder / "prompts.json"
        prompts.write_text(json.dumps(WARM))
        with warmed(command, port, environment, folder, MODEL=NAME, PROMPTS_FILE=str(prompts), **settings) as server:
            row.ready_s.append(server.ready_after_s)
            row.firsts_s.append(first_token_s(port, "Do you ship to islands?"))
            row.steady_s += [first_token_s(port, f"Is item {number} in stock?") for number in range(STEADY)]


def planted(row: Row, **settings: str) -> None:
    """One start of the server with a planted cold start."""
    port = free_port()
    command = [sys.executable, "-m", "tests_models.planted_server", str(port), str(COLD), os.devnull]
    one_start(row, command, port, os.environ, **settings)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(prog="python -m e2e.load.warm_up", description=__doc__.splitlines()[0])
    parser.add_argument("--planted", type=int, default=15, help="starts of the planted server")
    parser.add_argument("--vllm", type=int, default=5, help="starts of vLLM")
    options = parser.parse_args(arguments)
    rows = [Row("planted cold start"), Row("vLLM on CPU"), Row("planted, one prompt (control)")]
    for _ in range(options.planted):
        planted(rows[0])
        planted(rows[2], PROMPTS_AT_LEAST="1", PROMPTS_IN_A_ROW="1")
    if options.vllm:
        found = vllm.installed(os.environ)
        for _ in range(options.vllm):
            port = free_port()
            one_start(rows[1], found.command(port, NAME), port, found.environment)
    print(f"{'':<30} {'starts':>6} {'ready after':>12} {'first':>10} {'steady':>10} {'ratio':>6}")
    for row in rows:
        if row.firsts_s:
            figures = [1000 * statistics.median(times) for times in (row.firsts_s, row.steady_s)]
            print(
                f"{row.name:<30} {len(row.firsts_s):>6} {statistics.median(row.ready_s):>10.1f} s"
                f" {figures[0]:>7.1f} ms {figures[1]:>7.1f} ms {row.ratio:>6.2f}"
            )
    ratios = [first / statistics.median(row.steady_s) for row in rows[:2] for first in row.firsts_s]
    overall = statistics.median(ratios)
    print(f"median over {len(ratios)} starts: {overall:.2f} times steady; at most {BAR}")
    is_met = overall <= BAR and all(row.ratio <= BAR for row in rows[:2] if row.firsts_s)
    is_told_apart = rows[2].ratio > BAR
    if not is_told_apart:
        print("the control passes as well: this run shows nothing")
    return 0 if is_met and is_told_apart else 1


if __name__ == "__main__":
    sys.exit(main())
