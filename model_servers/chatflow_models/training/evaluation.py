"""How good held-out predictions are: accuracy, calibration, coverage, precision, confusion, out-of-scope leak."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chatflow_models.intent.calibration import expected_calibration_error
from chatflow_models.intent.features import Float32

_PAIRS = 20


@dataclass(frozen=True, slots=True)
class Confusion:
    """One intent taken for another."""

    actual: str
    predicted: str
    count: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures over held-out questions, 0 to 1. A prediction is right when the most probable of all classes,
    out-of-scope among them, is the question's own."""

    accuracy: float
    """Share of in-scope questions that are predicted right."""
    calibration_error: float
    """Expected calibration error, 15 bins, of the confidence in the best intent, over in-scope questions."""
    coverage: float
    """Share of in-scope questions whose confidence is above the threshold."""
    precision: float
    """Share of those that are right; 1 when there are none."""
    out_of_scope_leak: float | None
    """Share of out-of-scope questions whose confidence is above the threshold; None without such questions."""


def evaluate(probabilities: Float32, classes: NDArray[np.intp], threshold: float) -> Evaluation:
    """The figures of (n, intents + 1) probabilities, out-of-scope last, for questions of the given classes."""
    return figures(
        probabilities[:, :-1].max(axis=1),
        probabilities.argmax(axis=1) == classes,
        classes != probabilities.shape[1] - 1,
        threshold,
    )


def figures(
    confidence: NDArray[np.floating], is_right: NDArray[np.bool_], inside: NDArray[np.bool_], threshold: float
) -> Evaluation:
    """The same from the confidence in the best intent, whether it is right, and whether the question is in scope."""
    outside, passes = ~inside, confidence > threshold
    passed = inside & passes
    return Evaluation(
        accuracy=_share(is_right[inside]),
        calibration_error=expected_calibration_error(confidence[inside], is_right[inside]),
        coverage=_share(passes[inside]),
        precision=_share(is_right[passed]) if passed.any() else 1.0,
        out_of_scope_leak=_share(passes[outside]) if outside.any() else None,
    )


def _share(flags: NDArray[np.bool_]) -> float:
    return float(flags.mean()) if len(flags) else 0.0


def confusion_matrix(probabilities: Float32, classes: NDArray[np.intp]) -> NDArray[np.intp]:
    """(classes, classes) counts: rows are the actual classes, columns the predicted ones."""
    count = probabilities.shape[1]
    flat = classes * count + probabilities.argmax(axis=1)
    return np.bincount(flat, minlength=count * count).reshape(count, count)


def top_confusions(matrix: NDArray[np.intp], names: tuple[str, ...]) -> tuple[Confusion, ...]:
    """The most frequent mistakes, the most frequent first."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_PAIRS]
    cells = [divmod(int(cell), len(names)) for cell in order if wrong.flat[cell]]
    return tuple(Confusion(names[row], names[column], int(wrong[row, column])) for row, column in cells)
