"""Where a text goes: to a pending slot, an action, the knowledge base, or a language model. Pure; one decision a turn.

Called by `answerers.dispatch` for every turn and by `chatflow evaluate` for every labelled question.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import msgspec
from chatflow_api.runtime_config import ActionConfig, HandoffConfig, RuntimeConfig, SlotConfig

from chatflow_runtime.domain.conversation import Memory, Scene
from chatflow_runtime.domain.normalisation import normalise
from chatflow_runtime.domain.phrases import MAX_PHRASE_LENGTH, Phrase, bare, parse_rating, phrase_of

MAX_ASKED = 3
"""A slot that was asked this often without a usable answer ends the action."""


class Intent(msgspec.Struct, frozen=True):
    """What the classifier made of a text; `name` is None when there is no classifier."""

    name: str | None
    confidence: float
    is_in_scope: bool


class Greet(msgspec.Struct, frozen=True):
    """The user says hello."""


class Cancel(msgspec.Struct, frozen=True):
    """The user gives the action up, or failed too often to name a slot."""


class AskRating(msgspec.Struct, frozen=True):
    """The answer helped: ask for a rating."""


class Rate(msgspec.Struct, frozen=True):
    """The user rates."""

    score: int


class Collect(msgspec.Struct, frozen=True):
    """Ask for a slot; `is_repeated` when the last answer held no such value."""

    action: ActionConfig
    slot: SlotConfig
    slots: Mapping[str, str]
    is_repeated: bool = False


class Act(msgspec.Struct, frozen=True):
    """Everything an action needs is there: call it."""

    action: ActionConfig
    slots: Mapping[str, str]


class Answer(msgspec.Struct, frozen=True):
    """A question. `is_known` allows an answer from knowledge; `resume` is a slot question that waits meanwhile."""

    is_known: bool
    resume: Collect | None = None


class HandOver(msgspec.Struct, frozen=True):
    """The user wants a person: says so, or asks for what the manifest leads to one."""

    reason: Literal["phrase", "intent"]


class Relay(msgspec.Struct, frozen=True):
    """A person answers: pass the message on."""


Route = Greet | Cancel | AskRating | Rate | Collect | Act | Answer | HandOver | Relay


class HandoffRules(msgspec.Struct, frozen=True):
    """What leads to a person, beside the built-in phrases; `phrases` are bare."""

    phrases: frozenset[str]
    intent: str | None


@dataclass(frozen=True)
class Rules:
    """What routing needs of a flow, prepared once."""

    confidence: float
    rating_scale: int
    slots: Mapping[str, SlotConfig]
    patterns: Mapping[str, re.Pattern[str]]
    actions_by_intent: Mapping[str, ActionConfig]
    actions_by_name: Mapping[str, ActionConfig] = field(default_factory=dict)
    handoff: HandoffRules | None = None
    """None where nobody takes over."""

    @classmethod
    def of(cls, config: RuntimeConfig) -> Rules:
        """The rules of a flow."""
        dialogue = config.dialogue
        return cls(
            confidence=config.intent.confidence,
            rating_scale=dialogue.rating_scale,
            slots={slot.name: slot for slot in dialogue.slots},
            patterns={slot.name: re.compile(slot.pattern) for slot in dialogue.slots},
            actions_by_intent={action.intent: action for action in dialogue.actions},
            actions_by_name={action.name: action for action in dialogue.actions},
            handoff=None if dialogue.handoff is None else _handoff_rules(dialogue.handoff),
        )

    @cached_property
    def alone(self) -> Rules:
        """The same, where no person can take over."""
        return self if self.handoff is None else replace(self, handoff=None)


def _handoff_rules(handoff: HandoffConfig) -> HandoffRules:
    # One of punctuation alone would be every text of punctuation.
    phrases = frozenset(filter(None, (bare(normalise(phrase)) for phrase in handoff.phrases)))
    return HandoffRules(phrases, handoff.intent)


def route(text: str, scene: Scene, memory: Memory, intent: Intent, rules: Rules) -> Route:
    """The one place where a turn is decided. `text` is normalised."""
    if scene is Scene.HANDOFF and rules.handoff is not None:
        return Relay()
    phrase = phrase_of(text)
    if rules.handoff is not None and (phrase is Phrase.HANDOFF or _is_own_phrase(text, rules.handoff)):
        return HandOver("phrase")
    if scene is Scene.COLLECT and memory.action in rules.actions_by_name:
        return _collecting(text, phrase, memory, intent, rules)
    if scene is Scene.EVALUATE and (score := parse_rating(text, rules.rating_scale)) is not None:
        return Rate(score)
    if phrase is Phrase.GREETING:
        return Greet()
    if phrase is Phrase.SATISFIED and scene in (Scene.ANSWER, Scene.EVALUATE):
        return AskRating()
    return _question(text, memory, intent, rules)


def acted_on(intent: Intent, rules: Rules) -> bool:
    """Whether a classification is sure enough: in scope, and above the manifest's confidence."""
    return intent.name is not None and intent.is_in_scope and intent.confidence > rules.confidence


def missing_slot(action: ActionConfig, slots: Mapping[str, str], rules: Rules) -> SlotConfig | None:
    """The first slot of an action that has no value yet."""
    return next((rules.slots[name] for name in action.slots if name not in slots), None)


def _question(text: str, memory: Memory, intent: Intent, rules: Rules) -> Route:
    if intent.name is None:
        return Answer(is_known=True)
    if not acted_on(intent, rules):
        return Answer(is_known=False)
    if rules.handoff is not None and intent.name == rules.handoff.intent:
        return HandOver("intent")
    action = rules.actions_by_intent.get(intent.name)
    if action is None:
        return Answer(is_known=True)
    return _proceed(action, {**memory.slots, **_values(text, action.slots, rules)}, rules)


def _is_own_phrase(text: str, rules: HandoffRules) -> bool:
    return bool(rules.phrases) and len(text) <= MAX_PHRASE_LENGTH and bare(text) in rules.phrases


def _collecting(text: str, phrase: Phrase | None, memory: Memory, intent: Intent, rules: Rules) -> Route:
    action = rules.actions_by_name[str(memory.action)]
    if phrase is Phrase.CANCEL:
        return Cancel()
    found = _values(text, action.slots, rules)
    if found:
        return _proceed(action, {**memory.slots, **found}, rules)
    slot = missing_slot(action, memory.slots, rules)
    if slot is None:
        return Act(action, memory.slots)
    ask_again = Collect(action, slot, memory.slots, is_repeated=True)
    if acted_on(intent, rules) and intent.name != action.intent:
        other = _question(text, memory, intent, rules)
        return Answer(is_known=True, resume=ask_again) if isinstance(other, Answer) else other
    return Cancel() if memory.asked >= MAX_ASKED else ask_again


def _proceed(action: ActionConfig, slots: Mapping[str, str], rules: Rules) -> Route:
    slot = missing_slot(action, slots, rules)
    return Act(action, slots) if slot is None else Collect(action, slot, slots)


def _values(text: str, names: Sequence[str], rules: Rules) -> dict[str, str]:
    """The slots' values in a text. What one slot has taken is no part of another: an order number holds no phone."""
    found = {}
    for name in names:
        match = rules.patterns[name].search(text)
        if match:
            # Alternatives of a pattern may have a group each, or none.
            found[name] = next(filter(None, match.groups()), match.group(0))
            text = f"{text[: match.start()]} {text[match.end() :]}"
    return found
