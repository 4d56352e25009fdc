"""Server-sent events, cut anywhere."""

from __future__ import annotations

import pytest
from chatflow_runtime.adapters.event_stream import MAX_EVENT_BYTES, EventStream, EventTooLong
from hypothesis import given
from hypothesis import strategies as st

EVENTS = [b"one", b"", "两行\n第二行".encode(), b"x: y", b"[DONE]"]


@given(
    end=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    cuts=st.lists(st.integers(1, 120), max_size=12),
    has_mark=st.booleans(),
)
def test_events_are_found_wherever_the_bytes_are_cut(end: bytes, cuts: list[int], has_mark: bool) -> None:
    lines = [b": comment", b"", b"event: ping", b""]
    for event in EVENTS:
        lines += [b"id: 7", *(b"data: " + line for line in event.split(b"\n")), b""]
    stream = (b"\xef\xbb\xbf" if has_mark else b"") + end.join([*lines, b""])
    parser, found, start = EventStream(), [], 0
    for cut in [*sorted(cuts), len(stream)]:
        if start < cut:
            found += parser.feed(stream[start:cut])
            start = cut
    found += parser.finish()
    assert found == EVENTS


def test_an_event_without_end_is_refused() -> None:
    parser = EventStream()
    lines = [b"data: " + b"x" * 1024 + b"\n"] * (MAX_EVENT_BYTES // 1024 + 1)
    with pytest.raises(EventTooLong):
        list(map(parser.feed, lines))
