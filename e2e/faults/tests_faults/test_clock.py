"""The shifted clock of the fault scenarios."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
from pathlib import Path

from e2e.faults.plant import Clock

SAYS = "import sys, time\nfor line in sys.stdin: print(time.time(), time.time_ns() / 1e9, time.monotonic(), flush=True)"


def test_a_process_goes_by_the_clock_that_is_set_while_it_runs(tmp_path: Path) -> None:
    clock = Clock(tmp_path / "clock")
    clock.file.write_bytes(struct.pack("<d", 0.0))
    environment = {**os.environ, **clock.environment}
    with subprocess.Popen(
        [sys.executable, "-c", SAYS], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        monotonic = []
        for ahead_s in (0.0, 3600.0, -3600.0, 0.0):
            clock.set(ahead_s)
            process.stdin.write("now\n")
            process.stdin.flush()
            wall_s, wall_ns_s, monotonic_s = map(float, process.stdout.readline().split())
            assert abs(wall_s - time.time() - ahead_s) < 60
            assert abs(wall_ns_s - time.time() - ahead_s) < 60
            monotonic.append(monotonic_s)
        assert monotonic == sorted(monotonic)
        assert monotonic[-1] - monotonic[0] < 60
        process.stdin.close()
