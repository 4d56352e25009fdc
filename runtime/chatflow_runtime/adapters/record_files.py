"""Records as JSON lines, a file per kind and UTC day: ports.RecordSink for one machine. The worker writes them.

A record is kept once by its user and id, even when the worker dies between writing and discarding: a file's last lines
are read before it is first written to, and a line that a crash cut short is taken away, since its record comes again.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from chatflow_runtime.ports import Record

_REMEMBERED = 65_536
"""Ids remembered per file. A batch that may come again has at most 256 partitions times 100 records."""

_OPEN_FILES = 8
"""Files whose ids are remembered: some kinds on some days."""


class _Line(msgspec.Struct):
    """What is read back of a line."""

    uid: str
    id: str


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(_Line)


class RecordFiles:
    """RecordSink that appends to `<folder>/<kind>-YYYY-MM-DD.jsonl`, by the day of the record itself."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: dict[Path, dict[tuple[str, str], None]] = {}

    async def write(self, records: Sequence[Record]) -> None:
        """Append those that are not there yet, and return once they are on disk; OSError when they cannot be."""
        await asyncio.to_thread(self._write, records)

    def _write(self, records: Sequence[Record]) -> None:
        by_file: dict[Path, list[Record]] = defaultdict(list)
        for record in records:
            day = datetime.fromtimestamp(record.at_ms / 1000, UTC).date().isoformat()
            by_file[self._folder / f"{record.kind}-{day}.jsonl"].append(record)
        for path, rows in by_file.items():
            self._append(path, rows)

    def _append(self, path: Path, rows: Sequence[Record]) -> None:
        kept = self._kept.get(path)
        if kept is None:
            kept = _open(path)
        fresh = {(row.uid, row.id): row for row in rows if (row.uid, row.id) not in kept}
        # Until the data is on disk nothing is remembered: after a failure the file is read again.
        self._kept.pop(path, None)
        if fresh:
            with path.open("ab") as file:
                file.write(b"".join(_ENCODER.encode(row) + b"\n" for row in fresh.values()))
                file.flush()
                os.fsync(file.fileno())
        kept.update(dict.fromkeys(fresh))
        for oldest in list(kept)[: max(0, len(kept) - _REMEMBERED)]:
            del kept[oldest]
        self._kept[path] = kept
        while len(self._kept) > _OPEN_FILES:
            del self._kept[next(iter(self._kept))]


def _open(path: Path) -> dict[tuple[str, str], None]:
    """The ids at the end of a file that is ready for appending, oldest first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.touch()
        _sync_folder(path.parent)
        return {}
    kept: dict[tuple[str, str], None] = {}
    whole_bytes = 0
    with path.open("r+b") as file:
        for line in file:
            if not line.endswith(b"\n"):
                file.truncate(whole_bytes)
                break
            whole_bytes += len(line)
            try:
                row = _DECODER.decode(line)
            except msgspec.MsgspecError:
                # People edit these files; a line of theirs is no record of ours.
                continue
            kept[row.uid, row.id] = None
            if len(kept) > _REMEMBERED:
                del kept[next(iter(kept))]
    return kept


def _sync_folder(folder: Path) -> None:
    """A new file's name is on disk only once its folder is."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
