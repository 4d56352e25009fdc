"""What is wrong with examples from several sources: conflicts stop a rehearsal, doubts go to its report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from chatflow_models.intent.errors import TrainingDataError
from chatflow_models.intent.text import normalise

from .examples import Example
from .near_duplicates import Alike

_PAIRS_SHOWN = 20


def refuse_conflicts(examples: Sequence[Example]) -> None:
    """TrainingDataError with a line for every text that has two labels, and where each stands."""
    labelled: defaultdict[str, dict[str, Example]] = defaultdict(dict)
    for example in examples:
        labelled[normalise(example.text)].setdefault(example.intent, example)
    conflicts = [list(found.values()) for found in labelled.values() if len(found) > 1]
    if conflicts:
        raise TrainingDataError("\n".join(_conflict(*found[:2]) for found in conflicts))


def _conflict(first: Example, second: Example) -> str:
    where = f"{second.source}: " if second.source else ""
    other = f" in {first.source}" if first.source else ""
    return (
        f"{where}{second.text!r} has the label {second.intent!r}, but {first.intent!r}{other};"
        " keep the right one and remove the other"
    )


def doubtful_pairs(examples: Sequence[Example], pairs: Sequence[Alike]) -> tuple[str, ...]:
    """A line for near-duplicates with different labels, those most alike first."""
    found = [pair for pair in pairs if examples[pair.first].intent != examples[pair.second].intent]
    lines = list(_doubts(examples, found[:_PAIRS_SHOWN]))
    if len(found) > _PAIRS_SHOWN:
        lines.append(f"near-duplicates with different labels: {len(found) - _PAIRS_SHOWN} more pairs")
    return tuple(lines)


def _doubts(examples: Sequence[Example], pairs: Sequence[Alike]) -> Iterator[str]:
    for pair in pairs:
        first, second = examples[pair.first], examples[pair.second]
        yield f"near-duplicates with different labels: {_shown(first)} and {_shown(second)}"


def _shown(example: Example) -> str:
    where = f" in {example.source}" if example.source else ""
    return f"{example.text!r} ({example.intent}{where})"
