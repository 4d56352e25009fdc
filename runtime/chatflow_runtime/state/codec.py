"""Stored values: msgpack arrays [schema, body]. Older schemas are upgraded step by step, newer ones refused unread.

Used by the Redis stores. The conversation's envelope is written by the Lua scripts (lua/envelope.lua), which keep the
same rules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Literal, TypeVar

import msgspec

from chatflow_runtime.domain.conversation import SCHEMA, Memory, Message
from chatflow_runtime.domain.deliveries import Delivery
from chatflow_runtime.domain.reply import Notice, Reply
from chatflow_runtime.errors import StateError, StateSchemaTooNew
from chatflow_runtime.ports import Letter, Record

T = TypeVar("T")

Upgrade = Callable[[Any], Any]
"""Turns the decoded body of one schema into that of the next."""

_ENCODER = msgspec.msgpack.Encoder()
_ARRAY_16 = 0xDC
"""msgpack's mark of an array whose length follows in two bytes."""


def head(schema: int = SCHEMA) -> bytes:
    """The bytes before the body: an array of two whose first element is the schema (0 to 127)."""
    return bytes((0x92, schema))


class Codec(Generic[T]):
    """Encodes one type of value. `upgrades[n]` leads from schema n to n + 1; a step that is absent changes nothing,
    because a field that is new has a default."""

    def __init__(self, type_: type[T], *, schema: int = SCHEMA, upgrades: Mapping[int, Upgrade] | None = None) -> None:
        self._type = type_
        self._schema = schema
        self._upgrades = upgrades or {}
        self._head = head(schema)
        self._decoder = msgspec.msgpack.Decoder(type_)
        rows = list[tuple[Literal[schema], type_]]  # type: ignore[valid-type]
        self._row_decoder = msgspec.msgpack.Decoder(rows)

    def encode(self, value: T) -> bytes:
        """The stored form."""
        return self._head + _ENCODER.encode(value)

    def decode(self, data: bytes) -> T:
        """The value; StateSchemaTooNew when a newer release wrote it, StateError when it is damaged."""
        try:
            if data.startswith(self._head):
                return self._decoder.decode(memoryview(data)[2:])
            return self._upgraded(data)
        except (msgspec.MsgspecError, ValueError, TypeError) as error:
            raise StateError(
                f"a stored {self._type.__name__} is damaged ({error}); delete the user's keys to go on"
            ) from error

    def decode_all(self, rows: Sequence[bytes]) -> list[T]:
        """The values of many rows (65,535 at most), in one pass when all of them are of this schema."""
        if not rows:
            return []
        array = bytes((_ARRAY_16,)) + len(rows).to_bytes(2, "big")
        try:
            return [value for _, value in self._row_decoder.decode(array + b"".join(rows))]
        except msgspec.MsgspecError:
            return [self.decode(row) for row in rows]

    def _upgraded(self, data: bytes) -> T:
        schema, body = msgspec.msgpack.decode(data, type=tuple[int, msgspec.Raw])
        if schema > self._schema:
            raise too_new(self._type.__name__, schema, self._schema)
        value = msgspec.msgpack.decode(body)
        for step in range(schema, self._schema):
            value = self._upgrades.get(step, _unchanged)(value)
        return msgspec.convert(value, self._type)


def _unchanged(body: Any) -> Any:
    return body


def too_new(what: str, found: int, readable: int = SCHEMA) -> StateSchemaTooNew:
    """The error for a value of a newer release."""
    return StateSchemaTooNew(
        f"{what} is stored in schema {found}, and this release reads schemas up to {readable};"
        " it was left as it is: run the newer release"
    )


MEMORIES = Codec(Memory)
MESSAGES = Codec(Message)
REPLIES = Codec(Reply)
NOTICES = Codec(Notice)
RECORDS = Codec(Record)
LETTERS = Codec(Letter)
DELIVERIES = Codec(Delivery)
