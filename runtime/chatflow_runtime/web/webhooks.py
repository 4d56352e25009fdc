"""What is posted to webhooks, as msgspec types; `docs.openapi` makes the schemas from them. What they share with the
outbox is in its form."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, assert_never

import msgspec
from msgspec import Meta

from chatflow_runtime.domain.deliveries import Delivery, MessageAnswered, MessageFailed
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


Payload = MessageAnsweredPayload | MessageFailedPayload


def body_of(delivery: Delivery) -> bytes:
    """A delivery as it is posted: the same bytes at each attempt."""
    return wire.encode(_payload(delivery))


def _payload(delivery: Delivery) -> Payload:
    at = datetime.fromtimestamp(delivery.at_ms / 1000, UTC)
    match delivery.told:
        case MessageAnswered(uid=uid, message_id=message_id, id=outbox_id, reply=reply):
            shown = wire.reply_of(OutboxItem(outbox_id, reply), wire.ChatReply)
            return MessageAnsweredPayload(at, AnsweredMessage(uid, message_id, outbox_id, shown))
        case MessageFailed(uid=uid, message_id=message_id, notice=notice):
            outbox_id = delivery.outbox_id or ""
            told = wire.notice_of(outbox_id, notice, wire.NoticeEvent)
            return MessageFailedPayload(at, FailedMessage(uid, message_id, outbox_id, told))
        case other:
            assert_never(other)
