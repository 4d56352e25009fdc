"""What a model makes of labelled questions, and the figures of it. Used by `rehearsal`, `comparison` and the pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from chatflow_api.v1alpha1 import OUT_OF_SCOPE
from numpy.typing import NDArray

from chatflow_models.intent.features import Float32
from chatflow_models.intent.scoring import IntentModel

from .evaluation import Evaluation, figures
from .examples import Example

_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Judged:
    """Questions and what a model takes them for, all in one order."""

    questions: tuple[Example, ...]
    predicted: tuple[str, ...]
    """The most probable of all classes, out-of-scope among them."""
    confidence: Float32
    """(n,) in the best intent."""

    @property
    def is_right(self) -> NDArray[np.bool_]:
        """(n,) whether the most probable class is the label."""
        return np.array(
            [question.intent == found for question, found in zip(self.questions, self.predicted, strict=True)],
            dtype=np.bool_,
        )

    @property
    def is_inside(self) -> NDArray[np.bool_]:
        """(n,) whether the question is in scope, by its label."""
        return np.array([question.intent != OUT_OF_SCOPE for question in self.questions], dtype=np.bool_)

    def evaluation(self, threshold: float) -> Evaluation:
        """The figures above a threshold."""
        return figures(self.confidence, self.is_right, self.is_inside, threshold)


def judge(model: IntentModel, questions: Sequence[Example], tell: Callable[[float], None]) -> Judged:
    """All questions; `tell` is given the share that is done."""
    predicted: list[str] = []
    confidence: list[float] = []
    for start in range(0, len(questions), _AT_ONCE):
        for found in model.predict([question.text for question in questions[start : start + _AT_ONCE]]):
            predicted.append(found.intent if found.is_in_scope else OUT_OF_SCOPE)
            confidence.append(found.confidence)
        tell(len(predicted) / len(questions))
    return Judged(tuple(questions), tuple(predicted), np.array(confidence, dtype=np.float32))
