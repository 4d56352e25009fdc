"""Ids of stream entries, `<ms>-<sequence>`: the ids of SSE events. Used by the stores to check what clients send."""

from __future__ import annotations

from typing import NamedTuple

from chatflow_runtime.errors import InvalidMessage

_LAST = 2**64 - 1


class StreamId(NamedTuple):
    """Ordered as the server orders them."""

    at_ms: int
    sequence: int

    def __str__(self) -> str:
        return f"{self.at_ms}-{self.sequence}"

    @classmethod
    def of(cls, text: str) -> StreamId:
        """The id that a text names, the sequence being 0 where it is left out; InvalidMessage when it names none."""
        at_ms, _, sequence = text.partition("-")
        parts = (at_ms, sequence or "0")
        if len(text) > 41 or not all(part.isascii() and part.isdecimal() and int(part) <= _LAST for part in parts):
            raise InvalidMessage(f"{text[:41]!r} is no event id; send one that an event had, or 0 for all")
        return cls(int(at_ms), int(parts[1]))

    def following(self, now_ms: int) -> StreamId:
        """The id of an entry added now."""
        return StreamId(now_ms, 0) if now_ms > self.at_ms else StreamId(self.at_ms, self.sequence + 1)

    def preceding(self) -> StreamId:
        """The last id before this one: whoever reads on from it gets this one first."""
        return StreamId(self.at_ms, self.sequence - 1) if self.sequence else StreamId(self.at_ms - 1, _LAST)
