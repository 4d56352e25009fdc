"""How alike a text is to the examples of each class. Used by scoring and by training.

A linear model draws one boundary around a class; a few odd but well-known ways to ask lie outside it. The mean cosine
to the nearest examples of a class knows them: by the encoder's vectors, and by n-grams. Calibration decides on held-out
examples how much each counts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .features import BLOCKS, Float32, GramBatch

NEAREST = 3
"""Examples of a class that speak for it; fewer where it has no more."""


class VectorNeighbours:
    """The examples' vectors, class by class."""

    def __init__(self, vectors: Float32, starts: NDArray[np.intp]) -> None:
        """`vectors` are (n, dimensions), centred, of length 1 and sorted by class; `starts` has the first row of each
        class."""
        self._transposed = np.ascontiguousarray(vectors.T)
        self._starts = starts

    def likeness(self, vectors: Float32) -> Float32:
        """(m, classes) of (m, dimensions) centred vectors of length 1."""
        return nearest(vectors @ self._transposed, self._starts)


class GramNeighbours:
    """The examples' n-grams, class by class, by n-gram: which examples hold it, and what it weighs there."""

    def __init__(
        self,
        idf: Float32,
        pointers: NDArray[np.int64],
        grams: NDArray[np.int32],
        weights: Float32,
        starts: NDArray[np.intp],
    ) -> None:
        """Example i holds `grams` and their `weights` from pointers[i] to pointers[i + 1]; `starts` has the first
        example of each class."""
        holders = np.repeat(np.arange(len(pointers) - 1), np.diff(pointers))
        order = np.argsort(grams, kind="stable")
        self._holders, self._weights = holders[order], weights[order].astype(np.float64) / BLOCKS
        # One n-gram more than there are: the padding of a batch, which nothing holds.
        counts = np.bincount(grams, minlength=len(idf) + 1)
        self._first, self._counts = np.cumsum(counts) - counts, counts
        self._idf = np.append(idf, np.float32(0))
        self._starts, self._size = starts, len(pointers) - 1

    def likeness(self, batch: GramBatch, lengths: Float32) -> Float32:
        """(m, classes) of the m texts of a batch, whose segments have the given `lengths`."""
        texts = len(batch.starts) // BLOCKS
        sizes = np.diff(batch.starts, append=len(batch.ids))
        own = self._idf[batch.ids] / np.repeat(lengths, sizes)
        counts = self._counts[batch.ids]
        ends = np.cumsum(counts)
        places = np.arange(ends[-1]) + np.repeat(self._first[batch.ids] - (ends - counts), counts)
        text_of = np.repeat(np.repeat(np.arange(texts), BLOCKS), sizes)
        cells = self._holders[places] + np.repeat(text_of * self._size, counts)
        cosines = np.bincount(cells, self._weights[places] * np.repeat(own, counts), texts * self._size)
        return nearest(cosines.reshape(texts, self._size).astype(np.float32), self._starts)


def nearest(cosines: Float32, starts: NDArray[np.intp]) -> Float32:
    """(m, classes) mean of the highest cosines of each class, from (m, n) with the examples sorted by class. A class
    without examples is like nothing: 0. `cosines` are used up."""
    sizes = np.diff(starts, append=cosines.shape[1])
    held = np.flatnonzero(sizes)
    firsts, sizes = starts[held], sizes[held]
    result = np.zeros((len(cosines), len(starts)), dtype=np.float32)
    if not len(held):
        return result
    wanted = np.minimum(sizes, NEAREST)
    open_places = np.broadcast_to(wanted, (len(cosines), len(held))).copy()
    total = np.zeros_like(open_places, dtype=np.float32)
    # Round by round the highest of every class at once: a loop over classes costs more than all the rest of a text.
    for _ in range(NEAREST):
        best = np.maximum.reduceat(cosines, firsts, axis=1)
        is_best = cosines == np.repeat(best, sizes, axis=1)
        taken = np.minimum(np.add.reduceat(is_best, firsts, axis=1, dtype=np.intp), open_places)
        # A class that is through has -inf for its best.
        np.add(total, best * np.maximum(taken, 1), out=total, where=taken > 0)
        open_places -= taken
        cosines[is_best] = -np.inf
    result[:, held] = total / wanted
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
