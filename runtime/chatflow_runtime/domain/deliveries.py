"""What webhooks are told: what happened, to whom, and since when it waits. Stored as it is; `web.webhooks` gives it the
form that is sent."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from chatflow_runtime.domain.reply import Notice, Reply


class Hook(StrEnum):
    """Whom a manifest may name to be told."""

    MESSAGES = "messages"
    """Of replies to messages that are answered later."""


class MessageAnswered(msgspec.Struct, frozen=True, tag="message.answered"):
    """A message that was accepted for later has its reply, under an id of the outbox."""

    uid: str
    message_id: str
    id: str
    reply: Reply


class MessageFailed(msgspec.Struct, frozen=True, tag="message.failed"):
    """A message that was accepted for later gets no reply; the notice tells its user."""

    uid: str
    message_id: str
    notice: Notice


Told = MessageAnswered | MessageFailed


class Delivery(msgspec.Struct, frozen=True):
    """One thing that a webhook is told."""

    hook: Hook
    told: Told
    at_ms: int
    outbox_id: str | None = None
    """Of a notice that the same step has put into the outbox; the store knows it once it reads the delivery."""
