"""Texts that say almost the same in almost the same words, and the groups that they form. Used by `rehearsal`.

A text is the set of its words and of the pieces that `intent.text` cuts it into; two texts are near-duplicates when
their sets have a Jaccard index of at least ALIKE. Candidates are found by their rarest pieces, of which sets so alike
share some, and are counted in full only where those leave room for it (Xiao et al. 2008, "Efficient similarity joins
for near duplicate detection").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from chatflow_models.intent.text import grams, normalise, spelling

ALIKE = 0.7
"""From here on two wordings are one: `daily digest` and `daily digest on`, `登录密码怎么换` and `怎么换登录密码`."""
_COMPARED_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class Alike:
    """Two near-duplicates by their places, the lower one first."""

    first: int
    second: int
    likeness: float


def near_duplicates(texts: Sequence[str]) -> tuple[Alike, ...]:
    """Pairs of near-duplicates, those most alike first: of texts with the same pieces the first one stands for all, and
    is a pair with each of them. A thousand questions that differ in an order number make a thousand pairs."""
    firsts: dict[frozenset[str], int] = {}
    same: list[Alike] = []
    for place, text in enumerate(texts):
        first = firsts.setdefault(frozenset(_pieces(text)), place)
        if first != place:
            same.append(Alike(first, place, 1.0))
    places = list(firsts.values())
    others = [Alike(places[one.first], places[one.second], one.likeness) for one in _alike(list(firsts))]
    return tuple(sorted([*same, *others], key=lambda pair: (-pair.likeness, pair.first, pair.second)))


def _alike(sets: Sequence[frozenset[str]]) -> list[Alike]:
    """All pairs of sets, no two of which are the same."""
    rows = _rows(sets)
    sizes = np.diff(rows.indptr)
    kept = _kept(sizes)
    rarest = _rarest(rows, kept)
    last = rarest.indices[rarest.indptr[1:] - 1]
    transposed = rarest.T.tocsr()
    found: list[Alike] = []
    for start in range(0, len(sets), _COMPARED_AT_ONCE):
        pairs = (rarest[start : start + _COMPARED_AT_ONCE] @ transposed).tocoo()
        first, second = pairs.row + start, pairs.col
        # What two sets share lies among the rarest pieces of both, or beyond those of the one whose rarest end first.
        beyond = np.where(last[first] <= last[second], (sizes - kept)[first], (sizes - kept)[second])
        needed = ALIKE / (1 + ALIKE) * (sizes[first] + sizes[second])
        is_possible = (first < second) & (pairs.data + beyond >= needed - 1e-6)
        first, second = first[is_possible], second[is_possible]
        shared = rows[first].multiply(rows[second]).sum(axis=1)
        likeness = shared / (sizes[first] + sizes[second] - shared)
        for place in np.flatnonzero(likeness >= ALIKE):
            found.append(Alike(int(first[place]), int(second[place]), round(float(likeness[place]), 4)))
    return found


def group_of(count: int, pairs: Sequence[Alike]) -> NDArray[np.intp]:
    """(count,) a number for each text, the same for those that near-duplicates lead to from one another."""
    places = ([pair.first for pair in pairs], [pair.second for pair in pairs])
    graph = csr_array((np.ones(len(pairs), dtype=np.int8), places), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.intp)


def _pieces(text: str) -> set[str]:
    found = grams(normalise(text))
    # A number is one piece: two questions about order numbers have little in common.
    words = [word for word in found.spelt if not any(map(str.isdigit, word))]
    return {*found.words, *found.pieces, *(piece for word in words for piece in spelling(word))} or {text}


def _rows(sets: Sequence[frozenset[str]]) -> csr_array:
    """(texts, pieces) with 1 where a text has a piece; the rarest pieces are the first columns."""
    counts: dict[str, int] = {}
    for pieces in sets:
        for piece in pieces:
            counts[piece] = counts.get(piece, 0) + 1
    place = {piece: i for i, piece in enumerate(sorted(counts, key=lambda piece: (counts[piece], piece)))}
    columns = [sorted(place[piece] for piece in pieces) for pieces in sets]
    pointers = np.cumsum([0, *map(len, columns)])
    indices = np.array([column for row in columns for column in row], dtype=np.int32)
    ones = np.ones(len(indices), dtype=np.float32)
    return csr_array((ones, indices, pointers), shape=(len(sets), max(len(place), 1)))


def _kept(sizes: NDArray[np.intp]) -> NDArray[np.intp]:
    """How many of its rarest pieces a set of each size needs, so that one so alike shares at least one."""
    return np.asarray(sizes - np.ceil(ALIKE * sizes - 1e-9) + 1, dtype=np.intp)


def _rarest(rows: csr_array, kept: NDArray[np.intp]) -> csr_array:
    """The same with so many of each text's rarest pieces alone."""
    sizes = np.diff(rows.indptr)
    within = np.arange(len(rows.indices)) - np.repeat(rows.indptr[:-1], sizes)
    is_kept = within < np.repeat(kept, sizes)
    pointers = np.concatenate([[0], np.cumsum(kept)])
    return csr_array((rows.data[is_kept], rows.indices[is_kept], pointers), shape=rows.shape)
