"""The n-gram featuriser: texts to weighted n-grams over a vocabulary, used by training and by scoring alike.

Each text is two blocks of n-grams, words and pieces (see `text.Grams`). A block is a unit vector of inverse document
frequencies; an n-gram that the vocabulary lacks counts in the length although it has no weight, so the more of a text
is new, the less evidence the rest of it carries.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import log
from typing import Self

import numpy as np
from numpy.typing import NDArray

from .text import grams, spelling

Float32 = NDArray[np.float32]
BLOCKS = 2
"""Blocks of a text: words, then pieces."""
MAX_SPELLINGS = 50_000
"""How many words a featuriser remembers the pieces of; some 30 MB at most."""
_LEAST_SQUARE = np.float32(1e-12)


@dataclass(frozen=True, slots=True)
class GramBatch:
    """The n-grams of n texts, as 2 n segments: each text's words, then its pieces.

    `ids` are rows of the vocabulary; every segment ends with the id `padding`, whose weight is zero, so that none is
    empty. `starts` are the segments' first positions, `unknown` the numbers of n-grams outside the vocabulary.
    """

    ids: NDArray[np.intp]
    starts: NDArray[np.intp]
    unknown: Float32


class Featuriser:
    """A fitted vocabulary: words and pieces share one numbering, words first."""

    def __init__(self, words: Sequence[str], pieces: Sequence[str], idf: Float32, unknown_idf: float) -> None:
        """`idf` (words + pieces,) are their inverse document frequencies, `unknown_idf` that of any other n-gram."""
        self.words, self.pieces, self.idf, self.unknown_idf = tuple(words), tuple(pieces), idf, unknown_idf
        self._word_ids = {gram: i for i, gram in enumerate(self.words)}
        self._piece_ids = {gram: i for i, gram in enumerate(self.pieces, start=len(self.words))}
        self._spellings: dict[str, tuple[tuple[int, ...], tuple[str, ...]]] = {}
        self._unknown_square = np.float32(unknown_idf**2)

    @classmethod
    def fit(cls, texts: Sequence[str], min_documents: int) -> Self:
        """The vocabulary of normalised texts: n-grams that at least `min_documents` of them hold."""
        word_count: Counter[str] = Counter()
        piece_count: Counter[str] = Counter()
        for text in texts:
            found = grams(text)
            word_count.update(found.words)
            piece_count.update({piece for word in found.spelt for piece in spelling(word)}.union(found.pieces))
        words = sorted(gram for gram, n in word_count.items() if n >= min_documents)
        pieces = sorted(gram for gram, n in piece_count.items() if n >= min_documents)
        frequencies = [word_count[gram] for gram in words] + [piece_count[gram] for gram in pieces]
        idf = np.log((1 + len(texts)) / (1 + np.array(frequencies, dtype=np.float64))) + 1
        return cls(words, pieces, idf.astype(np.float32), log((1 + len(texts)) / 2) + 1)

    @property
    def padding(self) -> int:
        """The id that stands at the end of every segment: one past the vocabulary."""
        return len(self.idf)

    def batch(self, texts: Iterable[str]) -> GramBatch:
        """The n-grams of normalised texts."""
        ids: list[int] = []
        starts: list[int] = []
        unknown: list[int] = []
        word_id, padding = self._word_ids.get, self.padding
        for text in texts:
            found = grams(text)
            words = [i for i in map(word_id, found.words) if i is not None]
            pieces, strangers = self._pieces(found.spelt, found.pieces)
            starts += (len(ids), len(ids) + len(words) + 1)
            unknown += (len(found.words) - len(words), strangers)
            ids += words
            ids.append(padding)
            ids += pieces
            ids.append(padding)
        return GramBatch(
            np.array(ids, dtype=np.intp), np.array(starts, dtype=np.intp), np.array(unknown, dtype=np.float32)
        )

    def _pieces(self, spelt: Sequence[str], unspaced: Sequence[str]) -> tuple[Iterable[int], int]:
        """Ids of the known pieces of a text, none twice, and how many pieces are unknown."""
        known: set[int] = set()
        strangers: set[str] = set()
        for word in spelt:
            ids, others = self._spellings.get(word) or self._spelling(word)
            known.update(ids)
            strangers.update(others)
        if unspaced:
            found = {piece: self._piece_ids.get(piece) for piece in unspaced}
            known.update([i for i in found.values() if i is not None])
            strangers.update([piece for piece, i in found.items() if i is None])
        return known, len(strangers)

    def _spelling(self, word: str) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """Ids of the known pieces of a word, and its unknown pieces; words come again and again, hence the memory."""
        pieces = spelling(word)
        ids = tuple(i for i in map(self._piece_ids.get, pieces) if i is not None)
        others = tuple(piece for piece in pieces if piece not in self._piece_ids)
        if len(self._spellings) < MAX_SPELLINGS:
            self._spellings[word] = ids, others
        return ids, others

    def lengths(self, batch: GramBatch, known_squares: Float32) -> Float32:
        """Length of every segment, unknown n-grams included; just above 0 for a segment without n-grams."""
        squares = batch.unknown * self._unknown_square
        squares += known_squares
        np.maximum(squares, _LEAST_SQUARE, out=squares)
        return np.asarray(np.sqrt(squares, out=squares), dtype=np.float32)
