"""The operator as a process of this machine, against any API server: its memory, its metrics, its end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from e2e.cluster.layout import REPOSITORY
from e2e.cluster.status import resident_bytes

START_WITHIN_S = 60.0
WRITES = ("apply", "apply_status", "create", "delete")


class OperatorProcess:
    """One run of `python -m chatflow_operator`."""

    def __init__(self, process: subprocess.Popen[bytes], health_port: int, metrics_port: int, log: Path) -> None:
        self.process, self.log = process, log
        self._health, self._metrics = health_port, metrics_port

    @property
    def resident_mib(self) -> float:
        """Its memory, as the kernel counts RSS."""
        return resident_bytes(self.process.pid) / 2**20

    @property
    def cpu_s(self) -> float:
        """The CPU time that it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def is_healthy(self) -> bool:
        """Whether its liveness probe answers well."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._health}/healthz", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def metrics(self) -> dict[str, float]:
        """Every sample by its name and labels, as exposed."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._metrics}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        pairs = (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in pairs}

    def total(self, name: str, *parts: str) -> float:
        """The sum of a metric's samples whose labels hold all `parts`."""
        return sum(
            value
            for sample, value in self.metrics().items()
            if sample.split("{")[0] == name and all(part in sample for part in parts)
        )

    def writes(self) -> int:
        """How many requests that write were answered well."""
        calls = "chatflow_operator_api_calls_total"
        return int(sum(self.total(calls, f'verb="{verb}"', 'code="2') for verb in WRITES))

    def kill(self) -> None:
        """End it at once, as a node that fails would."""
        self.process.kill()
        self.process.wait()


@contextmanager
def operator(kubeconfig: Path, log: Path, **environment: str) -> Iterator[OperatorProcess]:
    """An operator that works, while the context lasts; then it is told to stop, and must."""
    health, metrics = free_port(), free_port()
    variables: Mapping[str, str] = {
        **{key: value for key, value in os.environ.items() if not key.startswith("CHATFLOW_")},
        "KUBECONFIG": str(kubeconfig),
        "CHATFLOW_OPERATOR_HEALTH_PORT": str(health),
        "CHATFLOW_OPERATOR_METRICS_PORT": str(metrics),
        **{f"CHATFLOW_OPERATOR_{name}": value for name, value in environment.items()},
    }
    said = log.stat().st_size if log.exists() else 0
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "chatflow_operator"], env=variables, cwd=REPOSITORY, stdout=output, stderr=output
        )
    try:
        running = OperatorProcess(process, health, metrics, log)
        end = time.monotonic() + START_WITHIN_S
        while b"operator_ready" not in log.read_bytes()[said:] or not running.is_healthy():
            if process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"the operator did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.1)
        yield running
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0, f"the operator did not stop well:\n{log.read_text()[-3000:]}"
        new = log.read_text()[said:]
        assert "_broke" not in new, f"the operator met what it does not expect:\n{new[-3000:]}"
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
