"""Ends a child with its supervisor: `python leash.py SUPERVISOR_PID COMMAND...` becomes COMMAND.

Run by `children` as a script of its own, since code between fork and exec of a program with threads may deadlock.
The kernel sends SIGTERM when the supervisor dies, even by kill -9; elsewhere than on Linux only the group is tied.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
"""prctl(2)."""


def _tie(supervisor: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != supervisor:
        # It died before the tie was made.
        sys.exit(143)


if __name__ == "__main__":
    _tie(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606  The command is the supervisor's own.
