"""CPU time and placement of other processes, read from /proc (Linux)."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """User and system seconds that a process, all its threads included, has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def pin(pid: int, cpus: set[int]) -> None:
    """Keep every thread of a process on these processors."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), cpus)


@dataclass(frozen=True)
class Environment:
    """What a figure was measured on."""

    cpu: str
    cores: int
    kernel: str
    python: str

    @classmethod
    def here(cls) -> Environment:
        """This machine."""
        names = [
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ]
        return cls(
            cpu=names[0] if names else platform.machine(),
            cores=len(os.sched_getaffinity(0)),
            kernel=platform.release(),
            python=platform.python_version(),
        )
