"""What runs in a bed, in words."""

from __future__ import annotations

from pathlib import Path

from .bed import Bed, Mode

MIB = 1024 * 1024


def resident_bytes(pid: int) -> int:
    """The memory of process `pid`, as the kernel counts RSS; 0 when it has ended."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0


def total_resident_bytes(bed: Bed) -> int:
    """The memory of every process inside the node's namespaces, containers included, as the kernel counts RSS."""
    return sum(int(line) * 1024 for line in bed.namespaces().run("ps", "-e", "-o", "rss=").split())


def report(bed: Bed) -> tuple[str, bool]:
    """A table of the bed's processes, and whether all of them run."""
    settings = bed.settings()
    if settings is None:
        return f"bed {bed.layout.name!r} is down", False
    lines = [f"bed {bed.layout.name!r}: {settings.mode}, API on https://127.0.0.1:{settings.api_port}"]
    is_whole = True
    for name in bed.processes.names():
        record = bed.processes.alive(name)
        is_whole = is_whole and record is not None
        state = (
            "has ended; run `up` to repair"
            if record is None
            else f"pid {record.pid}, {resident_bytes(record.pid) // MIB} MiB"
        )
        lines.append(f"  {name:24} {state}")
    if settings.mode is Mode.NODE and bed.namespaces().are_open:
        lines.append(f"  {'all, with containers':24} {total_resident_bytes(bed) // MIB} MiB resident")
    lines.append(f"  addons: {', '.join(settings.addons) or 'none'}")
    return "\n".join(lines), is_whole
