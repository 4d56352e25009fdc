"""What webhooks are told: what happened, to whom, and since when it waits. Stored as it is; `web.webhooks` gives it the
form that is sent."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec

from chatflow_runtime.domain.conversation import Message, Scene
from chatflow_runtime.domain.reply import Notice, Reply


class Hook(StrEnum):
    """Whom a manifest may name to be told."""

    MESSAGES = "messages"
    """Of replies to messages that are answered later."""
    HANDOFF = "handoff"
    """Of conversations that a person is to answer."""


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


class HandoffRequested(msgspec.Struct, frozen=True, tag="handoff.requested"):
    """A person is to take a conversation over. `scene` and `slots` are those before; `is_cut`: older messages were
    left out."""

    uid: str
    message_id: str
    reason: Literal["phrase", "intent"]
    scene: Scene
    slots: dict[str, str]
    transcript: tuple[Message, ...]
    is_cut: bool


class HandoffMessage(msgspec.Struct, frozen=True, tag="handoff.message"):
    """The user says something meanwhile."""

    uid: str
    message: Message


class HandoffEnded(msgspec.Struct, frozen=True, tag="handoff.ended"):
    """The bot answers again, or the conversation is over."""

    uid: str
    reason: Literal["returned", "timed_out"]


Told = MessageAnswered | MessageFailed | HandoffRequested | HandoffMessage | HandoffEnded


class Delivery(msgspec.Struct, frozen=True):
    """One thing that a webhook is told."""

    hook: Hook
    told: Told
    at_ms: int
    outbox_id: str | None = None
    """Of a notice that the same step has put into the outbox; the store knows it once it reads the delivery."""
    handoff_id: str | None = None
    """Which handoff it is about. Of its end the store knows it once it reads the delivery."""
