"""`make bench-smoke`: what a turn costs, in CPU time of the gateway and in rate, beside a reference from the same run.

Serves examples/shop-support by `chatflow up`, gateway on one core, load and state server on the other, 64 connections.
    knowledge_turn          light mode (n-grams), answer cache off, every question different
    knowledge_turn_default  the same with the default sentence encoder
    cached_turn             default encoder, answer cache on, the same questions again and again
    reference               Starlette, redis-py with hiredis, one EVALSHA of the same load script
Writes build/bench-smoke.json and prints the same. CPU time a request is robust on a shared machine; rates are not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import redis
import yaml

from e2e.load.processes import Environment, cpu_s, pin

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "shop-support"
GATEWAY_CPU, OTHER_CPU = 0, 1
LIGHT = ("--set", "models.intent.encoder=none")
UNCACHED = ("--set", "knowledge.cache.entries=0")


@dataclass(frozen=True)
class Served:
    """Something under load."""

    port: int
    pid: int
    redis_pid: int
    redis_url: str


@dataclass(frozen=True)
class Case:
    """One row of the result."""

    name: str
    options: tuple[str, ...]
    is_same: bool = False


CASES = (
    Case("knowledge_turn", (*LIGHT, *UNCACHED)),
    Case("knowledge_turn_default", UNCACHED),
    Case("cached_turn", (), is_same=True),
)


def questions() -> list[str]:
    """The questions of the example's knowledge base, as its authors wrote them."""
    found: list[str] = []
    for file in sorted((EXAMPLE / "knowledge").glob("*.yaml")):
        for entry in yaml.safe_load(file.read_text(encoding="utf-8")):
            found += [entry["question"], *entry.get("similar", [])]
    return found


@contextlib.contextmanager
def flow(data: Path, options: tuple[str, ...]) -> Iterator[Served]:
    """`chatflow up` for as long as the context lasts."""
    port = free_port()
    command = [sys.executable, "-m", "chatflow_cli", "up", str(EXAMPLE), "--port", str(port), "--data", str(data)]
    command += ["--no-reload", "--set", "gateway.auth.required=false", *options]
    with (
        (data / "up.log").open("w+") as log,
        subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log) as process,
    ):
        try:
            wait_for(port, process, log.name)
            gateway = descendant(process.pid, "chatflow_runtime --role gateway")
            server = descendant(process.pid, "redis-server", "valkey-server")
            yield Served(port, gateway, server, environment_of(gateway)["CHATFLOW_REDIS_URL"])
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


@contextlib.contextmanager
def reference(beside: Served) -> Iterator[Served]:
    """The reference application on the same state server."""
    port = free_port()
    command = [sys.executable, "-m", "e2e.load.reference", "--port", str(port), "--redis", beside.redis_url]
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            wait_for(port, process, "its output above")
            yield Served(port, process.pid, beside.redis_pid, beside.redis_url)
        finally:
            process.terminate()


def measure(served: Served, seconds: float, asked: list[str], *, is_same: bool) -> dict[str, Any]:
    """Warm up, then load for a time; CPU time is what the processes used meanwhile."""
    pin(served.pid, {GATEWAY_CPU})
    pin(served.redis_pid, {OTHER_CPU})
    load(served.port, 2, asked, f"w{served.port}", is_same=is_same)
    server = redis.from_url(served.redis_url)
    background = background_rate(server)
    calls, gateway_s, server_s = evalsha_calls(server), cpu_s(served.pid), cpu_s(served.redis_pid)
    began_s = time.monotonic()
    seen = load(served.port, seconds, asked, f"m{served.port}", is_same=is_same)
    wall_s = time.monotonic() - began_s
    gateway_s, server_s = cpu_s(served.pid) - gateway_s, cpu_s(served.redis_pid) - server_s
    requests = seen["requests"]
    return {
        "gateway_cpu_us": round(gateway_s / requests * 1e6, 1),
        "total_cpu_us": round((gateway_s + server_s) / requests * 1e6, 1),
        "requests_per_second": round(requests / min(wall_s, seconds + 1), 1),
        "redis_round_trips": round((evalsha_calls(server) - calls - background * wall_s) / requests, 2),
        **seen,
    }


def load(port: int, seconds: float, asked: list[str], run: str, *, is_same: bool) -> dict[str, Any]:
    """Run the load client on the other core."""
    command = [sys.executable, "-m", "e2e.load.client", "--port", str(port), "--seconds", str(seconds), "--run", run]
    done = subprocess.run(
        [*command, *(["--same"] if is_same else [])],
        cwd=ROOT,
        input="\n".join(asked),
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {OTHER_CPU}),
    )
    seen: dict[str, Any] = json.loads(done.stdout)
    if list(seen["statuses"]) != ["200"]:
        sys.exit(f"the load met other answers than 200: {seen['statuses']}")
    return seen


def evalsha_calls(server: redis.Redis) -> int:
    """How many scripts the state server has run."""
    stats = server.info("commandstats")
    return int(stats.get("cmdstat_evalsha", {"calls": 0})["calls"])


def background_rate(server: redis.Redis) -> float:
    """Scripts a second that the worker runs, whatever the load."""
    before, seconds = evalsha_calls(server), 3
    time.sleep(seconds)
    return (evalsha_calls(server) - before) / seconds


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes], log: str) -> None:
    """Return once something answers on the port; end with the log's name when the process ends first."""
    deadline_s = time.monotonic() + 180
    while time.monotonic() < deadline_s:
        if process.poll() is not None:
            sys.exit(f"{process.args!r} ended with {process.returncode}; see {log}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    sys.exit(f"nothing answers on port {port} after 180 s; see {log}")


def descendant(pid: int, *wanted: str) -> int:
    """The first process below `pid` whose command line holds one of the texts."""
    for child in children(pid):
        line = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        if any(text in line for text in wanted):
            return child
    sys.exit(f"no process below {pid} runs {' or '.join(wanted)}")


def children(pid: int) -> Iterator[int]:
    """All processes below one, parents first."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield int(child)
            yield from children(int(child))


def environment_of(pid: int) -> dict[str, str]:
    """A process's environment."""
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def main() -> None:
    """Measure everything, print it and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10, help="measured time of each case")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench-smoke.json")
    options = parser.parse_args()
    asked = questions()
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="chatflow-bench-") as folder:
        for case in CASES:
            with flow(Path(folder), case.options) as served:
                result[case.name] = measure(served, options.seconds, asked, is_same=case.is_same)
                if case is CASES[0]:
                    with reference(served) as compared:
                        row = measure(compared, options.seconds, asked, is_same=False)
                    result["reference"] = {**row, "cpu_us": row["gateway_cpu_us"]}
            print_row(case.name, result[case.name])
    print_row("reference", result["reference"])
    result["environment"] = asdict(Environment.here())
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2, ensure_ascii=False))


def print_row(name: str, row: dict[str, Any]) -> None:
    """One line of the table."""
    print(
        f"{name:24s} gateway {row['gateway_cpu_us']:8.1f} us   with state server {row['total_cpu_us']:8.1f} us   "
        f"{row['requests_per_second']:8.1f}/s   {row['redis_round_trips']} round trips   "
        f"p50 {row['p50_ms']} ms   p99 {row['p99_ms']} ms   {row['origins']}"
    )


if __name__ == "__main__":
    main()
