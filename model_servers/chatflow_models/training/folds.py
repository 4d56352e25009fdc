"""Cross-validation of the regression: logits of each example from a model that did not see it. Used by `fit`."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chatflow_models.intent.features import Float32
from chatflow_models.intent.neighbours import Neighbours

from .solver import Design, Regression, fit_weights

ALWAYS_TRAINED = -1
"""Fold of the only example of a class: held out, nothing would be left to learn it from."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Everything a fit needs: features, classes and importance of the same n examples."""

    design: Design
    classes: NDArray[np.intp]
    importance: Float32
    class_count: int
    vectors: Float32
    """(n, dimensions) of the encoder, centred, of length 1."""

    def fit(self, regression: Regression, start: Float32 | None = None) -> Float32:
        """(width, class_count) weights from all examples."""
        return fit_weights(self.design, self.classes, self.importance, self.class_count, regression, start)

    def part(self, chosen: NDArray[np.intp]) -> Problem:
        """The same for some of the examples."""
        return Problem(
            self.design.rows(chosen),
            self.classes[chosen],
            self.importance[chosen],
            self.class_count,
            self.vectors[chosen],
        )


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What cross-validation gives."""

    logits: Float32
    """(n, classes); rows of examples that were never held out are zero."""
    likeness: Float32
    """(n, classes) likeness to the other folds' examples; zero without an encoder."""
    is_held_out: NDArray[np.bool_]
    mean_weights: Float32
    """Mean of the folds' weights: a good start for the final fit."""


def assign_folds(classes: NDArray[np.intp], folds: int, generator: np.random.Generator) -> NDArray[np.intp]:
    """A fold for each example, the examples of a class spread evenly."""
    fold_of = np.full(len(classes), ALWAYS_TRAINED, dtype=np.intp)
    offset = 0
    for label in np.unique(classes):
        members = generator.permutation(np.flatnonzero(classes == label))
        if len(members) > 1:
            fold_of[members] = (offset + np.arange(len(members))) % folds
            offset += len(members)
    return fold_of


def hold_out(
    problem: Problem,
    fold_of: NDArray[np.intp],
    regression: Regression,
    workers: int,
    on_fold: Callable[[], None],
) -> HeldOut:
    """Fits once for every fold, on the other folds; `workers` fits run at a time, which changes no result."""
    folds = [fold for fold in np.unique(fold_of) if fold != ALWAYS_TRAINED]
    logits = np.zeros((len(problem.classes), problem.class_count), dtype=np.float32)
    likeness = np.zeros_like(logits)
    total = np.zeros((problem.design.width, problem.class_count), dtype=np.float32)

    def fit_fold(fold: int) -> Float32:
        return problem.part(np.flatnonzero(fold_of != fold)).fit(regression)

    with ThreadPoolExecutor(workers) as pool:
        for fold, weights in zip(folds, pool.map(fit_fold, folds), strict=True):
            held = np.flatnonzero(fold_of == fold)
            logits[held] = problem.design.rows(held).logits(weights)
            if problem.vectors.shape[1]:
                others = np.flatnonzero(fold_of != fold)
                known = Neighbours.of(problem.vectors[others], problem.classes[others], problem.class_count)
                likeness[held] = known.likeness(problem.vectors[held])
            total += weights
            on_fold()
    return HeldOut(logits, likeness, fold_of != ALWAYS_TRAINED, total / np.float32(max(len(folds), 1)))
