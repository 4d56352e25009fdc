"""What a turn answers: the reply, its sources and the notices between turns. Stored, streamed and sent as they are."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec

from chatflow_runtime.domain.conversation import Scene


class Rung(StrEnum):
    """How far the ladder had to go down for a reply."""

    L0 = "L0"
    """Cache, knowledge, dialogue rules and actions: no large model."""
    L1 = "L1"
    """A language model."""
    L2 = "L2"
    """The static reply: no model answered in time."""
    L3 = "L3"
    """Shed."""


class Origin(StrEnum):
    """Which answerer gave the reply."""

    CACHE = "cache"
    KNOWLEDGE = "knowledge"
    ACTION = "action"
    DIALOGUE = "dialogue"
    """Greeting, slot question, rating, refusal: the dialogue's own texts."""
    LLM = "llm"
    BACKUP = "backup"
    HANDOFF = "handoff"
    """None: the message was passed on to the person who answers. The text is empty."""
    STATIC = "static"
    SHED = "shed"


class Citation(msgspec.Struct, frozen=True, omit_defaults=True):
    """A passage that the reply rests on."""

    id: str
    title: str
    score: float
    url: str | None = None
    number: int | None = None
    """What stands for it in the text of a language model, in square brackets."""


class Usage(msgspec.Struct, frozen=True):
    """Tokens, as the model's server counted them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """One answer. `is_partial`: the stream broke off after its first delta, and the text ends there."""

    message_id: str
    text: str
    rung: Rung
    origin: Origin
    scene: Scene
    intent: str | None = None
    confidence: float | None = None
    citations: tuple[Citation, ...] = ()
    slot: str | None = None
    """The slot that the reply asks for."""
    rating_scale: int | None = None
    """Set when the reply asks for a rating from 1 to this."""
    usage: Usage | None = None
    model: str | None = None
    is_partial: bool = False
    retry_after_s: int | None = None
    """When the question is worth asking again, for a static reply while a model wakes."""
    at_ms: int = 0


class Notice(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that is said between turns. `failed`: the message of this id gets no answer. `agent`: a person says it;
    `returned`: the bot answers again; of both the id is the person's own."""

    kind: Literal["closing", "ended", "failed", "agent", "returned"]
    text: str
    at_ms: int
    message_id: str | None = None
    agent: str | None = None
    """The person's name."""


class OutboxItem(msgspec.Struct, frozen=True):
    """One entry of a user's outbox; `id` is the stream id, which SSE clients resume from."""

    id: str
    item: Reply | Notice
