"""How alike a text is to the examples of each class, by the encoder's vectors. Used by scoring and by training.

A linear model draws one boundary around a class; a few odd but well-known ways to ask lie outside it. The mean cosine
to the nearest examples of a class knows them. Calibration decides on held-out examples how much it counts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .features import Float32

NEAREST = 3
"""Examples of a class that speak for it; fewer where it has no more."""


class Neighbours:
    """The examples' vectors, class by class."""

    def __init__(self, vectors: Float32, starts: NDArray[np.intp]) -> None:
        """`vectors` are (n, dimensions), centred, of length 1 and sorted by class; `starts` has the first row of each
        class. A class without examples is like nothing: 0."""
        self._transposed = np.ascontiguousarray(vectors.T)
        self._ends = np.append(starts[1:], len(vectors))
        self._starts = starts

    @classmethod
    def of(cls, vectors: Float32, classes: NDArray[np.intp], class_count: int) -> Neighbours:
        """The neighbours of (n,) classes, from their vectors in any order."""
        order, starts = by_class(classes, class_count)
        return cls(vectors[order], starts)

    def likeness(self, vectors: Float32) -> Float32:
        """(m, classes) mean cosine of (m, dimensions) centred vectors of length 1 to the nearest examples."""
        cosines = vectors @ self._transposed
        result = np.zeros((len(vectors), len(self._starts)), dtype=np.float32)
        for place, (start, end) in enumerate(zip(self._starts, self._ends, strict=True)):
            size = end - start
            if size > NEAREST:
                nearest = np.partition(cosines[:, start:end], size - NEAREST, axis=1)[:, size - NEAREST :]
                result[:, place] = nearest.mean(axis=1)
            elif size:
                result[:, place] = cosines[:, start:end].mean(axis=1)
        return result


def by_class(classes: NDArray[np.intp], class_count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """An order of rows that sorts them by class, and the first row of each class in it."""
    order = np.argsort(classes, kind="stable")
    return order, np.searchsorted(classes[order], np.arange(class_count))


def centred(vectors: Float32, mean: Float32) -> Float32:
    """Vectors less their mean, at length 1; what all texts have in common says nothing about any."""
    moved = vectors - mean
    lengths = np.sqrt(np.einsum("ij,ij->i", moved, moved))
    moved /= np.maximum(lengths, np.float32(1e-6))[:, None]
    return np.asarray(moved, dtype=np.float32)
