"""What travels between clients and the gateway, as msgspec types; `docs.openapi` makes the schemas from them.

Requests refuse unknown fields: a misspelt `message_id` would otherwise silently cost the guarantee that a message takes
effect once.
"""

from __future__ import annotations

import secrets
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from chatflow_runtime.domain.conversation import Message, Scene
from chatflow_runtime.domain.normalisation import is_invisible
from chatflow_runtime.domain.reply import Citation, Notice, Origin, OutboxItem, Reply, Rung, Usage
from chatflow_runtime.errors import InvalidMessage, MessageTooLong
from chatflow_runtime.web.problems import MalformedRequest, Problem

T = TypeVar("T")

Id = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=128,
        description="1 to 128 visible characters, no white space.",
        extra_json_schema={"pattern": r"^\S+$"},
    ),
]
MessageId = Annotated[
    str | None,
    Meta(
        description="The client's own id of the message. Sent again with the same text it takes effect once; without it"
        " the gateway makes one up, and a repetition is a new message.",
        extra_json_schema={"minLength": 1, "maxLength": 128, "pattern": r"^\S+$"},
    ),
]
Text = Annotated[str, Meta(description="What the user says.", extra_json_schema={"minLength": 1})]
Comment = Annotated[str, Meta(max_length=2000)]
StreamId = Annotated[str, Meta(description="Outbox id; resume from it.", pattern=r"^[0-9]+(-[0-9]+)?$")]


User = Annotated[
    Id | None,
    Meta(description="The user; the credential's own, where that is of one user, when left out."),
]


class ChatRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A message of a user."""

    text: Text
    uid: User = None
    message_id: MessageId = None


class ChatReply(msgspec.Struct, frozen=True):
    """The reply to a message. `is_partial`: the stream of the language model broke off, and the text ends there."""

    id: StreamId
    message_id: str
    text: str
    rung: Annotated[Rung, Meta(description="L0 no model, L1 language model, L2 static reply, L3 shed.")]
    origin: Annotated[Origin, Meta(description="Which answerer gave the reply.")]
    scene: Annotated[Scene, Meta(description="Where the conversation stands now.")]
    intent: str | None
    confidence: Annotated[float | None, Meta(description="Calibrated probability of the intent, 0 to 1.")]
    citations: Annotated[tuple[Citation, ...], Meta(description="Passages that the reply rests on, best first.")]
    slot: Annotated[str | None, Meta(description="The slot that the reply asks for.")]
    rating_scale: Annotated[int | None, Meta(description="Set when the reply asks for a rating from 1 to this.")]
    usage: Usage | None
    model: str | None
    is_partial: bool
    retry_after_s: Annotated[int | None, Meta(description="Set when a model is waking: ask again after this long.")]
    at_ms: Annotated[int, Meta(description="Unix time in ms.")]


class AcceptedMessage(msgspec.Struct, frozen=True):
    """The message will be answered: its reply comes on /v1/events and on WebSockets after `last_event_id`."""

    message_id: str
    position: Annotated[int, Meta(description="How many messages are answered before it, about.")]
    last_event_id: StreamId


class DeltaEvent(msgspec.Struct, frozen=True):
    """A piece of the reply's text. The pieces of a reply join to its text, unless nothing was streamed."""

    text: str


class NoticeEvent(msgspec.Struct, frozen=True):
    """What is said between turns: the conversation is about to close or has ended, a message gets no answer, a person
    says something in the place of the bot, or the bot answers again."""

    id: StreamId
    kind: Literal["closing", "ended", "failed", "agent", "returned"]
    text: str
    at_ms: int
    message_id: Annotated[
        str | None,
        Meta(
            description="With `failed` the message that gets no answer; with `agent` and `returned` the desk's own id."
        ),
    ] = None
    agent: Annotated[str | None, Meta(description="Who says it, with `agent` and `returned`.")] = None


class RatingRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A rating of the conversation; `message_id` names the reply that asked for it."""

    score: Annotated[int, Meta(ge=1, le=10, description="1 to the flow's rating_scale.")]
    uid: User = None
    comment: Comment | None = None
    message_id: Id | None = None


class Rated(msgspec.Struct, frozen=True):
    """The rating is kept."""

    scene: Scene


class Session(msgspec.Struct, frozen=True):
    """A user without a name, and the token that proves to be that user."""

    uid: str
    token: Annotated[str, Meta(description="Send it as `Authorization: Bearer`.")]
    expires_at_ms: Annotated[int, Meta(description="Unix time in ms; exchange it for a fresh one before.")]


class TranscriptMessage(msgspec.Struct, frozen=True):
    """What was said. `assistant` is the bot, `agent` a person in its place."""

    role: Literal["user", "assistant", "agent"]
    text: str
    at_ms: int
    message_id: str
    agent: str | None = None


AgentName = Annotated[str, Meta(max_length=80, description="The name that users see.")]
HandoffId = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=80,
        description="The handoff that is meant; refused once it is over. Its message ids are its own then.",
    ),
]


class AgentMessageRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a person says to the user."""

    message_id: Annotated[Id, Meta(description="The desk's own id of it. Sent again it takes effect once.")]
    text: Annotated[str, Meta(description="What the person says.", extra_json_schema={"minLength": 1})]
    agent: AgentName | None = None
    handoff_id: HandoffId | None = None


class ReturnRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The bot shall answer again."""

    message_id: Id | None = None
    text: Annotated[str | None, Meta(description="Last words, instead of the built-in ones.")] = None
    agent: AgentName | None = None
    handoff_id: HandoffId | None = None


class AgentMessageKept(msgspec.Struct, frozen=True):
    """It stands in the user's outbox."""

    id: StreamId


class HandoffView(msgspec.Struct, frozen=True):
    """Where a conversation stands, and what was said of late."""

    uid: str
    scene: Scene
    handoff_id: Annotated[str | None, Meta(description="null unless a person answers.")]
    transcript: tuple[TranscriptMessage, ...]


class WidgetConfig(msgspec.Struct, frozen=True):
    """What the widget needs to know of the flow."""

    title: str
    greeting: str
    locale: str
    rating_scale: int
    max_text_length: int
    has_sessions: Annotated[bool, Meta(description="Whether visitors need a token of POST /v1/sessions.")]


class MessageFrame(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="message"):
    """WebSocket, from the client: a message."""

    text: Text
    message_id: MessageId = None


class ResumeFrame(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="resume"):
    """WebSocket, from the client: send again what came after this outbox id (`0`: all that is kept)."""

    last_event_id: StreamId


class RatingFrame(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="rating"):
    """WebSocket, from the client: a rating."""

    score: Annotated[int, Meta(ge=1, le=10)]
    comment: Comment | None = None
    message_id: Id | None = None


class PingFrame(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="ping"):
    """WebSocket, from the client: answered by a pong."""


ClientFrame = MessageFrame | ResumeFrame | RatingFrame | PingFrame


class DeltaFrame(DeltaEvent, frozen=True, tag="delta"):
    """WebSocket, from the gateway: a piece of the reply to a message of this connection."""

    message_id: str


class ReplyFrame(ChatReply, frozen=True, tag="reply"):
    """WebSocket, from the gateway: a whole reply, also to messages that came by other channels."""


class NoticeFrame(NoticeEvent, frozen=True, tag="notice"):
    """WebSocket, from the gateway: a notice."""


class RatedFrame(Rated, frozen=True, tag="rated"):
    """WebSocket, from the gateway: the rating is kept."""


class PongFrame(msgspec.Struct, frozen=True, tag="pong"):
    """WebSocket, from the gateway: the answer to a ping."""


class ErrorFrame(msgspec.Struct, frozen=True, tag="error"):
    """WebSocket, from the gateway: a frame was refused; `message_id` names the message if it was one."""

    problem: Problem
    message_id: str | None = None


ServerFrame = DeltaFrame | ReplyFrame | NoticeFrame | RatedFrame | PongFrame | ErrorFrame

ReplyType = TypeVar("ReplyType", bound=ChatReply)
NoticeType = TypeVar("NoticeType", bound=NoticeEvent)


def reply_of(item: OutboxItem, kind: type[ReplyType]) -> ReplyType:
    """An outbox entry that holds a reply, as a client sees it."""
    reply = item.item
    if not isinstance(reply, Reply):
        raise TypeError(f"outbox entry {item.id} is a notice")
    return kind(
        item.id,
        reply.message_id,
        reply.text,
        reply.rung,
        reply.origin,
        reply.scene,
        reply.intent,
        reply.confidence,
        reply.citations,
        reply.slot,
        reply.rating_scale,
        reply.usage,
        reply.model,
        reply.is_partial,
        reply.retry_after_s,
        reply.at_ms,
    )


def notice_of(item_id: str, notice: Notice, kind: type[NoticeType]) -> NoticeType:
    """A notice of the outbox, as a client sees it."""
    return kind(item_id, notice.kind, notice.text, notice.at_ms, notice.message_id, notice.agent)


def said_by(message: Message) -> TranscriptMessage:
    """A message of the history as desks see it: who of three has said it."""
    role: Literal["user", "assistant", "agent"] = "agent" if message.agent is not None else message.role
    return TranscriptMessage(role, message.text, message.at_ms, message.message_id, message.agent)


def decode(decoder: msgspec.json.Decoder[T], data: bytes | str, wanted: str) -> T:
    """A request as its type. MalformedRequest when it is no JSON, InvalidMessage when it does not fit; `wanted` tells
    what would."""
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        raise InvalidMessage(f"the request does not fit: {error}; send {wanted}") from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise MalformedRequest(f"the request is no JSON in UTF-8 ({error}); send {wanted}") from error


def checked_id(name: str, value: str | None) -> str:
    """A user or message id; InvalidMessage unless it is 1 to 128 visible characters."""
    if value is None:
        raise InvalidMessage(f"{name} is missing; give 1 to 128 visible characters")
    if not 1 <= len(value) <= 128 or not value.isprintable() or " " in value:
        raise InvalidMessage(f"{name} {value[:200]!r} does not fit; give 1 to 128 visible characters, no white space")
    return value


def checked_text(text: str, max_length: int) -> str:
    """A message's text; MessageTooLong beyond the manifest's limit, InvalidMessage when nothing in it can be seen."""
    if len(text) > max_length:
        raise MessageTooLong(
            f"the text has {len(text)} characters; send at most {max_length} (spec.gateway.maxTextLength)"
        )
    if all(character.isspace() or is_invisible(character) for character in text):
        raise InvalidMessage(f"the text {text[:20]!r} is empty; send the user's words")
    return text


def new_id(prefix: str) -> str:
    """A random id."""
    return f"{prefix}-{secrets.token_urlsafe(16)}"


def encode(value: Any) -> bytes:
    """JSON in UTF-8."""
    return _encoder.encode(value)


_encoder = msgspec.json.Encoder()
