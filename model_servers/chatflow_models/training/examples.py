"""Examples to train from, and what is wrong with them: errors that stop the training, warnings for its report."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from chatflow_api.v1alpha1 import OUT_OF_SCOPE

from chatflow_models.intent.errors import TrainingDataError
from chatflow_models.intent.text import normalise

THIN = 5
"""Fewer examples than this make an intent thin."""
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Example:
    """A question and its intent; the intent `out_of_scope` marks questions that the bot must not answer.

    `answer` names what answers it, where that is known: questions with one answer have more in common than their
    intent. `source` is where it stands, for messages.
    """

    text: str
    intent: str
    answer: str | None = None
    source: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class CheckedExamples:
    """Normalised examples, none twice, and what was found while checking them."""

    examples: tuple[Example, ...]
    labels: tuple[str, ...]
    """In-scope intents, sorted."""
    warnings: tuple[str, ...]


def check_examples(examples: Sequence[Example]) -> CheckedExamples:
    """Normalises and checks; TrainingDataError for data that no model can be trained from."""
    if not examples:
        raise TrainingDataError("there are no examples; list some under models.intent.examples")
    cleaned = [replace(example, text=normalise(example.text)) for example in examples]
    blank = Counter(example.intent for example in cleaned if not example.text)
    if blank:
        intent, count = blank.most_common(1)[0]
        raise TrainingDataError(f"intent {intent!r} has {count} blank examples; remove them or write their text")
    unnamed = [example.text for example in cleaned if not example.intent.strip()]
    if unnamed:
        raise TrainingDataError(f"example {unnamed[0]!r} has no intent; name one")
    unique = tuple({(example.text, example.intent): example for example in reversed(cleaned)}.values())[::-1]
    counts = Counter(example.intent for example in unique)
    labels = tuple(sorted(counts.keys() - {OUT_OF_SCOPE}))
    if not labels:
        raise TrainingDataError(f"all examples are {OUT_OF_SCOPE}; give at least one intent examples")
    warnings = [
        *_duplicates(len(cleaned) - len(unique)),
        *_conflicts(unique),
        *_thin_intents(counts, labels),
        *_missing(counts, labels),
    ]
    return CheckedExamples(unique, labels, tuple(warnings))


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _duplicates(count: int) -> list[str]:
    return [f"examples that stand twice in the same intent: {count}; each counts once"] if count else []


def _conflicts(examples: Sequence[Example]) -> list[str]:
    intents: defaultdict[str, list[str]] = defaultdict(list)
    for example in examples:
        intents[example.text].append(example.intent)
    conflicts = [f"{text!r} ({' and '.join(sorted(found))})" for text, found in intents.items() if len(found) > 1]
    return [f"{len(conflicts)} texts stand in several intents: {_shown(conflicts)}"] if conflicts else []


def _thin_intents(counts: Counter[str], labels: Sequence[str]) -> list[str]:
    thin = [f"{label} ({counts[label]})" for label in labels if counts[label] < THIN]
    return [f"{len(thin)} intents have fewer than {THIN} examples: {_shown(thin)}"] if thin else []


def _missing(counts: Counter[str], labels: Sequence[str]) -> list[str]:
    found = []
    if len(labels) == 1:
        found.append(f"{labels[0]} is the only intent; it is told from everyday questions alone")
    if not counts[OUT_OF_SCOPE]:
        found.append(f"there are no {OUT_OF_SCOPE} examples; look-alike questions may pass for an intent")
    return found
