"""Stored values: what is written is read, older schemas step by step, newer ones not at all."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from chatflow_runtime.domain.conversation import Memory, Message, Scene
from chatflow_runtime.domain.reply import Citation, Origin, Reply, Rung, Usage
from chatflow_runtime.errors import StateError, StateSchemaTooNew
from chatflow_runtime.ports import Record, RecordKind
from chatflow_runtime.state.codec import MEMORIES, MESSAGES, RECORDS, REPLIES, Codec, head
from hypothesis import given
from hypothesis import strategies as st

TEXTS = st.text(max_size=300)
MESSAGE = st.builds(Message, st.sampled_from(["user", "assistant"]), TEXTS, st.integers(0, 2**42), TEXTS)
MEMORY = st.builds(Memory, st.dictionaries(TEXTS, TEXTS, max_size=3), st.none() | TEXTS, st.none() | TEXTS)
FIELDS = st.dictionaries(TEXTS, TEXTS | st.integers(-(2**63), 2**63) | st.none(), max_size=4)
RECORD = st.builds(Record, st.sampled_from(RecordKind), TEXTS, st.integers(0, 2**42), FIELDS)
REPLY = st.builds(
    Reply,
    message_id=TEXTS,
    text=TEXTS,
    rung=st.sampled_from(Rung),
    origin=st.sampled_from(Origin),
    scene=st.sampled_from(Scene),
    confidence=st.none() | st.floats(0, 1),
    citations=st.lists(
        st.builds(Citation, TEXTS, TEXTS, st.floats(0, 1), st.none() | TEXTS, st.none() | st.integers(1, 20)),
        max_size=3,
    ).map(tuple),
    usage=st.none() | st.builds(Usage, st.integers(0, 9), st.integers(0, 9)),
)


@given(messages=st.lists(MESSAGE, max_size=30), memory=MEMORY, record=RECORD, reply=REPLY)
def test_what_is_encoded_is_decoded(messages: list[Message], memory: Memory, record: Record, reply: Reply) -> None:
    assert MESSAGES.decode_all([MESSAGES.encode(message) for message in messages]) == messages
    assert MEMORIES.decode(MEMORIES.encode(memory)) == memory
    assert RECORDS.decode(RECORDS.encode(record)) == record
    assert REPLIES.decode(REPLIES.encode(reply)) == reply


class Note(msgspec.Struct):
    """A value in its third schema: `body` was called `text` in the first, `at_ms` was in seconds up to the second."""

    body: str
    at_ms: int = 0


def rename(value: Any) -> Any:
    return {"body": value["text"], "at": value["at"]}


def to_milliseconds(value: Any) -> Any:
    return {"body": value["body"], "at_ms": value["at"] * 1000}


NOTES = Codec(Note, schema=3, upgrades={1: rename, 2: to_milliseconds})


@pytest.mark.parametrize(
    ("schema", "body"),
    [
        pytest.param(1, {"text": "hi", "at": 7}, id="two steps"),
        pytest.param(2, {"body": "hi", "at": 7}, id="one step"),
        pytest.param(3, {"body": "hi", "at_ms": 7000}, id="no step"),
        pytest.param(3, {"body": "hi", "at_ms": 7000, "added": 1}, id="a field of a later release of the same schema"),
    ],
)
def test_older_schemas_are_upgraded_step_by_step(schema: int, body: dict[str, Any]) -> None:
    data = head(schema) + msgspec.msgpack.encode(body)
    assert NOTES.decode(data) == Note("hi", 7000)
    assert NOTES.decode_all([data, NOTES.encode(Note("new"))]) == [Note("hi", 7000), Note("new")]


def test_a_schema_without_a_step_has_only_lost_fields_that_have_defaults() -> None:
    assert Codec(Note, schema=2).decode(head(1) + msgspec.msgpack.encode({"body": "hi"})) == Note("hi")


def test_a_newer_schema_is_refused_with_both_numbers() -> None:
    data = head(4) + msgspec.msgpack.encode({"whatever": 1})
    with pytest.raises(StateSchemaTooNew, match="Note is stored in schema 4, and this release reads schemas up to 3"):
        NOTES.decode(data)
    with pytest.raises(StateSchemaTooNew):
        NOTES.decode_all([NOTES.encode(Note("x")), data])


@pytest.mark.parametrize(
    "data", [b"", b"\x92", head(3), head(3) + b"\xc1", b"\xc1", head(3) + b"\x01", b"\x93\x03\x01\x01"]
)
def test_a_damaged_value_is_a_state_error(data: bytes) -> None:
    with pytest.raises(StateError, match="damaged"):
        NOTES.decode(data)
    with pytest.raises(StateError, match="damaged"):
        NOTES.decode_all([data])
