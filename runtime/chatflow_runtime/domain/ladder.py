"""The ladder as data: which answerers are tried for a question, in which order, whose turns go first, and which wait
for a model that wakes."""

from __future__ import annotations

from collections.abc import Sequence

from chatflow_runtime.domain.concurrency import Priority
from chatflow_runtime.domain.conversation import Conversation, Message, Scene
from chatflow_runtime.domain.reply import Origin, Rung

RUNG_OF: dict[Origin, Rung] = {
    Origin.CACHE: Rung.L0,
    Origin.KNOWLEDGE: Rung.L0,
    Origin.ACTION: Rung.L0,
    Origin.DIALOGUE: Rung.L0,
    Origin.HANDOFF: Rung.L0,
    Origin.LLM: Rung.L1,
    Origin.BACKUP: Rung.L1,
    Origin.STATIC: Rung.L2,
    Origin.SHED: Rung.L3,
}
"""The rung on which each answerer stands."""

MODELS: tuple[Origin, ...] = (Origin.LLM, Origin.BACKUP)
"""The models that are asked in turn before the static reply; a flow without one of them skips it."""


HELD_TURNS = 100
"""Turns of one process that wait for a model to wake, at most; further ones go on to the next rung."""
TURN_S = 10.0
"""What a turn would have kept the model busy for, roughly: so long one that went on without it counts."""
MEMORY_S = 90.0
"""How long after such a turn the demand stays at 1 at least: a scrape and a look at its result fall into it."""
WAKING_RETRY_S = 30
"""What a client is told to wait when a model was not running; large ones take minutes, small ones half of one."""
OVERLOAD_RETRY_S = 5
"""The same when a model had too much to do."""


def holds(waited_s: float, hold_s: float, others: int) -> bool:
    """Whether a turn waits on for a model of which no server runs, having waited `waited_s` by the next attempt, while
    `others` wait as well."""
    return waited_s <= hold_s and others < HELD_TURNS


def wanting(asking: int, absent_s: Sequence[float]) -> float:
    """How many turns want a model, of which `asking` wait for it or are being answered; `absent_s` are the seconds
    since others ended that had found no server."""
    recent = sum(age_s <= TURN_S for age_s in absent_s)
    was_wanted = any(age_s <= MEMORY_S for age_s in absent_s)
    return float(max(asking + recent, 1 if was_wanted else 0))


def priority_of(conversation: Conversation, sent: Sequence[Message] | None = None) -> Priority:
    """Who goes first when not all can. `sent` is the history that a client sends along instead."""
    # One that begins anew after its end keeps its revision, but no history.
    if conversation.scene is Scene.GREETING and not conversation.history and not sent:
        return Priority.NEW
    in_form = conversation.memory.pending is not None or conversation.scene is Scene.HANDOFF
    return Priority.HELD if in_form else Priority.UNDER_WAY
