"""What a person is told who takes a conversation over: its id, and its transcript within bounds. Pure.

Called by `answerers.handoff`, and by the stores for the end of a handoff.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from chatflow_runtime.domain.conversation import Message
from chatflow_runtime.domain.deliveries import Delivery, HandoffEnded, Hook

TRANSCRIPT_CHARACTERS = 64_000
"""Longest transcript; the oldest messages are left out first."""


def handoff_id(uid: str, message_id: str, revision: int, at_ms: int) -> str:
    """Names a handoff. Of several attempts at one message one is committed, and its id with it, so that the time may
    take part: revisions begin anew once a conversation is forgotten, and clients count messages anew."""
    named = f"{uid}\0{message_id}\0{revision}\0{at_ms}"
    return f"h-{hashlib.blake2b(named.encode('utf-8', 'surrogatepass'), digest_size=12).hexdigest()}"


def transcript(messages: Sequence[Message]) -> tuple[tuple[Message, ...], bool]:
    """The last messages within the bound, without empty ones, and whether older ones were left out."""
    spoken = [message for message in messages if message.text]
    first, room = len(spoken), TRANSCRIPT_CHARACTERS
    while first > 0 and (room := room - len(spoken[first - 1].text)) >= 0:
        first -= 1
    return tuple(spoken[first:]), first > 0


def timed_out(uid: str, at_ms: int) -> Delivery:
    """That a handoff has ended because its user fell silent; the store knows which one."""
    return Delivery(Hook.HANDOFF, HandoffEnded(uid, "timed_out"), at_ms)


def returned(uid: str, at_ms: int) -> Delivery:
    """That a handoff has ended because the person gave the conversation back; the store knows which one."""
    return Delivery(Hook.HANDOFF, HandoffEnded(uid, "returned"), at_ms)
