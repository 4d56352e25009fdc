"""What is posted to webhooks, as msgspec types; `docs.openapi` makes the schemas from them. What they share with the
outbox is in its form."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal, assert_never

import msgspec
from msgspec import Meta

from chatflow_runtime.domain.conversation import Scene
from chatflow_runtime.domain.deliveries import (
    Delivery,
    HandoffEnded,
    HandoffMessage,
    HandoffRequested,
    MessageAnswered,
    MessageFailed,
)
from chatflow_runtime.domain.reply import OutboxItem
from chatflow_runtime.web import wire

Timestamp = Annotated[datetime, Meta(tz=True, description="When it happened; a repetition keeps it.")]


class AnsweredMessage(msgspec.Struct, frozen=True):
    """A message that `POST /v1/messages` had accepted, and its reply."""

    uid: str
    message_id: str
    id: wire.StreamId
    reply: wire.ChatReply


class FailedMessage(msgspec.Struct, frozen=True):
    """A message that `POST /v1/messages` had accepted and that gets no reply, and what its user was told."""

    uid: str
    message_id: str
    id: wire.StreamId
    notice: wire.NoticeEvent


class MessageAnsweredPayload(msgspec.Struct, frozen=True, tag="message.answered"):
    """To `gateway.messages.webhook`."""

    timestamp: Timestamp
    data: AnsweredMessage


class MessageFailedPayload(msgspec.Struct, frozen=True, tag="message.failed"):
    """To `gateway.messages.webhook`."""

    timestamp: Timestamp
    data: FailedMessage


class RequestedHandoff(msgspec.Struct, frozen=True):
    """A conversation that a person is to take over. `scene` and `slots` are those before; `transcript` ends with the
    message that asks, `is_cut` where older ones were left out."""

    handoff_id: str
    uid: str
    message_id: str
    reason: Literal["phrase", "intent"]
    scene: Scene
    slots: dict[str, str]
    transcript: tuple[wire.TranscriptMessage, ...]
    is_cut: bool


class HandoffWord(msgspec.Struct, frozen=True):
    """What the user says meanwhile."""

    handoff_id: str
    uid: str
    message: wire.TranscriptMessage


class EndedHandoff(msgspec.Struct, frozen=True):
    """The bot answers again (`returned`), or the user fell silent and the conversation is over (`timed_out`)."""

    handoff_id: str
    uid: str
    reason: Literal["returned", "timed_out"]


class HandoffRequestedPayload(msgspec.Struct, frozen=True, tag="handoff.requested"):
    """To `dialogue.handoff.webhook`."""

    timestamp: Timestamp
    data: RequestedHandoff


class HandoffMessagePayload(msgspec.Struct, frozen=True, tag="handoff.message"):
    """To `dialogue.handoff.webhook`."""

    timestamp: Timestamp
    data: HandoffWord


class HandoffEndedPayload(msgspec.Struct, frozen=True, tag="handoff.ended"):
    """To `dialogue.handoff.webhook`."""

    timestamp: Timestamp
    data: EndedHandoff


Payload = (
    MessageAnsweredPayload
    | MessageFailedPayload
    | HandoffRequestedPayload
    | HandoffMessagePayload
    | HandoffEndedPayload
)


def body_of(delivery: Delivery) -> bytes:
    """A delivery as it is posted: the same bytes at each attempt."""
    return wire.encode(_payload(delivery))


def _payload(delivery: Delivery) -> Payload:
    at = datetime.fromtimestamp(delivery.at_ms / 1000, UTC)
    handoff = delivery.handoff_id or ""
    match delivery.told:
        case MessageAnswered(uid=uid, message_id=message_id, id=outbox_id, reply=reply):
            shown = wire.reply_of(OutboxItem(outbox_id, reply), wire.ChatReply)
            return MessageAnsweredPayload(at, AnsweredMessage(uid, message_id, outbox_id, shown))
        case MessageFailed(uid=uid, message_id=message_id, notice=notice):
            outbox_id = delivery.outbox_id or ""
            told = wire.notice_of(outbox_id, notice, wire.NoticeEvent)
            return MessageFailedPayload(at, FailedMessage(uid, message_id, outbox_id, told))
        case HandoffRequested(uid, message_id, reason, scene, slots, transcript, is_cut):
            said = tuple(map(wire.said_by, transcript))
            asked = RequestedHandoff(handoff, uid, message_id, reason, scene, slots, said, is_cut)
            return HandoffRequestedPayload(at, asked)
        case HandoffMessage(uid=uid, message=message):
            return HandoffMessagePayload(at, HandoffWord(handoff, uid, wire.said_by(message)))
        case HandoffEnded(uid=uid, reason=why):
            return HandoffEndedPayload(at, EndedHandoff(handoff, uid, why))
        case other:
            assert_never(other)
