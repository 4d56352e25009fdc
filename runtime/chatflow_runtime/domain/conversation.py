"""A conversation: its scenes, the one table that moves between them, and what is remembered.

The table is data: `state` hands it to the Lua scripts, so that the twin, Redis and the turn agree by construction.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec

SCHEMA = 1
"""Version of the stored values. Older ones are read, newer ones refused."""


class Scene(StrEnum):
    """Where a conversation stands."""

    GREETING = "greeting"
    COLLECT = "collect"
    ANSWER = "answer"
    EVALUATE = "evaluate"
    HANDOFF = "handoff"
    END = "end"


class Event(StrEnum):
    """What happened in a turn, or between turns."""

    GREETED = "greeted"
    COLLECTED = "collected"
    """An action wants (more) slots."""
    ANSWERED = "answered"
    CANCELLED = "cancelled"
    SATISFIED = "satisfied"
    """The user says that the answer helped."""
    RATED = "rated"
    REFUSED = "refused"
    """Moderation refused the text; nothing moves."""
    HANDED_OVER = "handed_over"
    RELAYED = "relayed"
    """A message was passed on to the person who answers; nothing moves."""
    RETURNED = "returned"
    TIMED_OUT = "timed_out"


TRANSITIONS: dict[Scene, dict[Event, Scene]] = {
    Scene.GREETING: {
        Event.GREETED: Scene.GREETING,
        Event.COLLECTED: Scene.COLLECT,
        Event.ANSWERED: Scene.ANSWER,
        Event.HANDED_OVER: Scene.HANDOFF,
        Event.TIMED_OUT: Scene.END,
    },
    Scene.COLLECT: {
        Event.COLLECTED: Scene.COLLECT,
        Event.ANSWERED: Scene.ANSWER,
        Event.CANCELLED: Scene.ANSWER,
        Event.HANDED_OVER: Scene.HANDOFF,
        Event.TIMED_OUT: Scene.END,
    },
    Scene.ANSWER: {
        Event.GREETED: Scene.ANSWER,
        Event.COLLECTED: Scene.COLLECT,
        Event.ANSWERED: Scene.ANSWER,
        Event.SATISFIED: Scene.EVALUATE,
        Event.HANDED_OVER: Scene.HANDOFF,
        Event.TIMED_OUT: Scene.END,
    },
    Scene.EVALUATE: {
        Event.GREETED: Scene.ANSWER,
        Event.COLLECTED: Scene.COLLECT,
        Event.ANSWERED: Scene.ANSWER,
        Event.SATISFIED: Scene.EVALUATE,
        Event.RATED: Scene.END,
        Event.HANDED_OVER: Scene.HANDOFF,
        Event.TIMED_OUT: Scene.END,
    },
    Scene.HANDOFF: {Event.RETURNED: Scene.ANSWER, Event.TIMED_OUT: Scene.END},
    Scene.END: {
        Event.GREETED: Scene.GREETING,
        Event.COLLECTED: Scene.COLLECT,
        Event.ANSWERED: Scene.ANSWER,
        Event.HANDED_OVER: Scene.HANDOFF,
    },
}
"""Scene by scene, where an event leads; an event that is not listed leaves the scene as it is."""


def next_scene(scene: Scene, event: Event) -> Scene:
    """Where `event` leads from `scene`."""
    return TRANSITIONS[scene].get(event, scene)


class Memory(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a turn remembers for the next one; opaque to the Lua scripts."""

    slots: dict[str, str] = {}
    """Collected values, kept for later actions of the conversation."""
    action: str | None = None
    """The action that waits for slots."""
    pending: str | None = None
    """The slot that was asked last."""
    asked: int = 0
    """How many times in a row it was asked."""


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message of the history."""

    role: Literal["user", "assistant"]
    text: str
    at_ms: int
    message_id: str
    """The client's message id; a reply carries that of the message it answers."""
    agent: str | None = None
    """The person who said it in the place of the bot."""


class Conversation(msgspec.Struct, frozen=True):
    """What a load returns."""

    scene: Scene = Scene.GREETING
    revision: int = 0
    """Number of committed turns; a commit with another one is refused."""
    memory: Memory = Memory()
    history: tuple[Message, ...] = ()
    """The last messages, oldest first."""
    handoff: str | None = None
    """The handoff that lasts, while a person answers."""
