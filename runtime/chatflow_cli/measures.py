"""The figures of an evaluation, from what the parts made of every labelled question. Pure; called by `evaluate`.

The definitions are those of docs/reference/evaluation.md and of `chatflow evaluate --help`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from chatflow_api.v1alpha1 import OUT_OF_SCOPE

BINS = 15
"""Bins of equal width for the calibration error, as in Guo et al., On Calibration of Modern Neural Networks, 2017."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One question and what became of it."""

    text: str
    intent: str
    """The label."""
    answers: tuple[str, ...]
    predicted: str | None
    confidence: float
    is_acted_on: bool
    """In scope by the model, and above the manifest's confidence."""
    found: tuple[str, ...]
    """Ids of the passages found, best first."""
    rung: str
    origin: str

    @property
    def is_in_scope(self) -> bool:
        """By its label."""
        return self.intent != OUT_OF_SCOPE

    @property
    def is_right(self) -> bool:
        """Whether the label was predicted."""
        return self.predicted == self.intent

    @property
    def is_mistaken(self) -> bool:
        """Whether an in-scope question got another intent, or an out-of-scope one is acted on."""
        return not self.is_right if self.is_in_scope else self.is_acted_on

    def is_found_within(self, count: int) -> bool:
        """Whether one of the right entries is among the first `count`."""
        return any(found in self.answers for found in self.found[:count])


@dataclass(frozen=True, slots=True)
class Figures:
    """The result. A share over no questions at all is None."""

    questions: int
    intent_accuracy: float | None
    precision_above_threshold: float | None
    coverage_above_threshold: float | None
    out_of_scope_above_threshold: float | None
    calibration_error: float | None
    found_at_1: float | None
    found_at_5: float | None
    out_of_scope_held_back: float | None
    rungs: Mapping[str, float]
    origins: Mapping[str, float]


def measure(judged: Sequence[Judged]) -> Figures:
    """All figures."""
    inside = [question for question in judged if question.is_in_scope]
    outside = [question for question in judged if not question.is_in_scope]
    above = [question for question in judged if question.is_acted_on]
    answerable = [question for question in judged if question.answers]
    return Figures(
        questions=len(judged),
        intent_accuracy=_share(inside, lambda question: question.is_right),
        precision_above_threshold=_share(above, lambda question: question.is_right),
        coverage_above_threshold=_share(inside, lambda question: question.is_acted_on),
        out_of_scope_above_threshold=_share(outside, lambda question: question.is_acted_on),
        calibration_error=calibration_error(inside),
        found_at_1=_share(answerable, lambda question: question.is_found_within(1)),
        found_at_5=_share(answerable, lambda question: question.is_found_within(5)),
        out_of_scope_held_back=_share(outside, lambda question: question.origin != "knowledge"),
        rungs=_shares(question.rung for question in judged),
        origins=_shares(question.origin for question in judged),
    )


def calibration_error(judged: Sequence[Judged]) -> float | None:
    """Expected calibration error: the gap between confidence and accuracy, bin by bin, weighted by the bin's share."""
    bins: dict[int, list[Judged]] = {}
    for question in judged:
        bins.setdefault(min(int(question.confidence * BINS), BINS - 1), []).append(question)
    if not judged:
        return None
    gaps = [abs(sum(question.confidence - question.is_right for question in questions)) for questions in bins.values()]
    return sum(gaps) / len(judged)


def _share(questions: Sequence[Judged], holds: Callable[[Judged], bool]) -> float | None:
    return sum(map(holds, questions)) / len(questions) if questions else None


def _shares(values: Iterable[str]) -> dict[str, float]:
    counts = Counter(values)
    total = sum(counts.values())
    return {name: count / total for name, count in sorted(counts.items())}
