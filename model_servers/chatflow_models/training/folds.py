"""Cross-validation: logits and evidence for each example from a model that did not see it. Used by `fit`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from chatflow_models.intent.artefact import Evidence
from chatflow_models.intent.features import BLOCKS, Float32
from chatflow_models.intent.neighbours import VectorNeighbours, by_class, nearest
from chatflow_models.intent.topics import evidence

from .solver import Design, Regression, fit_weights

ALWAYS_TRAINED = -1
"""Fold of the only group of a class: held out, nothing would be left to learn it from."""
_COMPARED_AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class Topics:
    """Classes finer than intents, numbered in the order of the classes that they belong to."""

    numbers: NDArray[np.intp]
    """(n,) the topic of each example."""
    starts: NDArray[np.intp]
    """(classes,) the first topic of each class."""
    count: int


@dataclass(frozen=True, slots=True)
class Problem:
    """Everything a fit needs: features, classes and importance of the same n examples."""

    design: Design
    classes: NDArray[np.intp]
    importance: Float32
    class_count: int
    vectors: Float32
    """(n, dimensions) of the encoder, centred, of length 1."""
    grams: csr_array
    """(n, grams) features that likeness is measured by."""
    topics: Topics | None = None

    def fit(self, regression: Regression, start: Float32 | None = None) -> Float32:
        """(width, classes + topics) weights from all examples: those of the model of classes, then of topics."""
        models = [(self.classes, 0, self.class_count)]
        if self.topics is not None:
            models.append((self.topics.numbers, self.class_count, self.topics.count))
        return np.hstack(
            [
                fit_weights(
                    self.design,
                    numbers,
                    self.importance,
                    count,
                    regression,
                    None if start is None else np.ascontiguousarray(start[:, first : first + count]),
                )
                for numbers, first, count in models
            ]
        )

    def part(self, chosen: NDArray[np.intp]) -> Problem:
        """The same for some of the examples."""
        return Problem(
            self.design.rows(chosen),
            self.classes[chosen],
            self.importance[chosen],
            self.class_count,
            self.vectors[chosen],
            self.grams[chosen],
            None if self.topics is None else replace(self.topics, numbers=self.topics.numbers[chosen]),
        )


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What cross-validation gives."""

    logits: Float32
    """(n, classes); rows of examples that were never held out are zero."""
    evidence: Mapping[Evidence, Float32]
    """(n, classes) of each kind that there is, likewise."""
    is_held_out: NDArray[np.bool_]
    mean_weights: Float32
    """Mean of the folds' weights: a good start for the final fit."""


def assign_folds(
    classes: NDArray[np.intp], groups: NDArray[np.intp], folds: int, generator: np.random.Generator
) -> NDArray[np.intp]:
    """A fold for each example, the examples of a class spread evenly, those of a class and a group (near-duplicates)
    never divided: a fold's model would know the answer by heart."""
    fold_of = np.full(len(classes), ALWAYS_TRAINED, dtype=np.intp)
    sizes = np.zeros(folds, dtype=np.intp)
    for label in np.unique(classes):
        members = np.flatnonzero(classes == label)
        names, group = np.unique(groups[members], return_inverse=True)
        if len(names) < 2:
            continue
        of_group = np.split(members[np.argsort(group, kind="stable")], np.cumsum(np.bincount(group))[:-1])
        own = np.zeros(folds, dtype=np.intp)
        # The largest groups first, each to the fold that has the fewest of the class, then the fewest of all.
        for number in sorted(generator.permutation(len(names)), key=[-len(one) for one in of_group].__getitem__):
            fold = int(np.lexsort((sizes, own))[0])
            fold_of[of_group[number]] = fold
            own[fold] += len(of_group[number])
            sizes[fold] += len(of_group[number])
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
    kinds = [] if problem.topics is None else [Evidence.TOPICS]
    kinds += [Evidence.VECTORS, Evidence.GRAMS] if problem.vectors.shape[1] else []
    logits = np.zeros((len(problem.classes), problem.class_count), dtype=np.float32)
    found = {kind: np.zeros_like(logits) for kind in kinds}
    columns = problem.class_count + (0 if problem.topics is None else problem.topics.count)
    total = np.zeros((problem.design.width, columns), dtype=np.float32)

    def fit_fold(fold: int) -> Float32:
        return problem.part(np.flatnonzero(fold_of != fold)).fit(regression)

    with ThreadPoolExecutor(workers) as pool:
        for fold, weights in zip(folds, pool.map(fit_fold, folds), strict=True):
            held, others = np.flatnonzero(fold_of == fold), np.flatnonzero(fold_of != fold)
            scored = problem.design.rows(held).logits(weights)
            logits[held] = scored[:, : problem.class_count]
            if problem.topics is not None:
                found[Evidence.TOPICS][held] = evidence(scored[:, problem.class_count :], problem.topics.starts)
            if problem.vectors.shape[1]:
                found[Evidence.VECTORS][held], found[Evidence.GRAMS][held] = _likeness(problem, held, others)
            total += weights
            on_fold()
    return HeldOut(logits, found, fold_of != ALWAYS_TRAINED, total / np.float32(max(len(folds), 1)))


def _likeness(problem: Problem, held: NDArray[np.intp], others: NDArray[np.intp]) -> tuple[Float32, Float32]:
    """(held, classes) likeness to the other examples by vectors, and by n-grams."""
    order, starts = by_class(problem.classes[others], problem.class_count)
    known = others[order]
    by_vectors = VectorNeighbours(problem.vectors[known], starts).likeness(problem.vectors[held])
    transposed = problem.grams[known].T.tocsr()
    by_grams = [
        nearest(
            (problem.grams[held[first : first + _COMPARED_AT_ONCE]] @ transposed).toarray() / np.float32(BLOCKS),
            starts,
        )
        for first in range(0, len(held), _COMPARED_AT_ONCE)
    ]
    return by_vectors, np.concatenate(by_grams)
