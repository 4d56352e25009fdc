"""Server-sent events, as bytes come in: https://html.spec.whatwg.org/multipage/server-sent-events.html.

Called by `openai_chat`, which needs the data alone: event names, ids and retry times are passed over.
"""

from __future__ import annotations

MAX_EVENT_BYTES = 1 << 20
"""Longest event; a server that sends more is not speaking this protocol."""


class EventTooLong(ValueError):
    """An event is longer than MAX_EVENT_BYTES."""


class EventStream:
    """Takes bytes cut anywhere, gives the data of the events that are complete."""

    def __init__(self) -> None:
        self._rest = b""
        """An unfinished line."""
        self._data: list[bytes] = []
        """Data lines of the unfinished event."""
        self._size = 0
        self._is_first = True

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of the events that `chunk` completes, one item an event."""
        text = self._rest + chunk
        if self._is_first and len(text) >= 3:
            text = text.removeprefix(b"\xef\xbb\xbf")
            self._is_first = False
        lines = text.splitlines(keepends=True)
        # A carriage return at the end may be the first half of a line end.
        is_open = bool(lines) and not lines[-1].endswith(b"\n")
        self._rest = lines.pop() if is_open else b""
        events = [data for line in lines if (data := self._take(line.rstrip(b"\r\n"))) is not None]
        self._grow(0)
        return events

    def finish(self) -> list[bytes]:
        """The data of an event whose closing blank line the server left out."""
        lines = [self._rest.rstrip(b"\r"), b""]
        self._rest = b""
        return [data for line in lines if (data := self._take(line)) is not None]

    def _take(self, line: bytes) -> bytes | None:
        """The data of the event that a line ends, if it does."""
        if not line:
            data, self._data, self._size = self._data, [], 0
            return b"\n".join(data) if data else None
        field, _, value = line.partition(b":")
        if field == b"data":
            self._data.append(value.removeprefix(b" "))
            self._grow(len(value))
        return None

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size + len(self._rest) > MAX_EVENT_BYTES:
            raise EventTooLong(f"an event of more than {MAX_EVENT_BYTES} bytes")
