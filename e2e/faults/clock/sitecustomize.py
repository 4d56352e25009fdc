"""Shifts the wall clock of a Python process by as many seconds as stand in a file that another process writes to.

Python imports this by its name at every start, where this folder is on PYTHONPATH; only `plant` puts it there. The
monotonic clock stays as it is, as it does when a machine's clock is set.
"""

import mmap
import os
import struct
import time

_file = os.environ.get("CHATFLOW_FAULTS_CLOCK")
if _file is not None:
    with open(_file, "rb") as _opened:  # noqa: PTH123  Nothing else is imported this early.
        _shared = mmap.mmap(_opened.fileno(), 8, access=mmap.ACCESS_READ)
    _time, _time_ns = time.time, time.time_ns

    def _offset_s() -> float:
        offset_s: float = struct.unpack("<d", _shared[:8])[0]
        return offset_s

    time.time = lambda: _time() + _offset_s()
    time.time_ns = lambda: _time_ns() + round(_offset_s() * 1e9)
