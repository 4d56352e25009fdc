"""Lexical search: BM25F over entries. `index` builds and stores it.

Scores lie in 0 to 1, because they are divided by what a perfect match would reach. The questions of an entry count as
one field: the cosine with each of them, tried beside it, added nothing.
BM25F: Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond, 2009, section 3.6.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from chatflow_runtime.adapters.knowledge.entries import Entry
from chatflow_runtime.adapters.knowledge.segmentation import SECONDARY_WEIGHT, is_secondary, terms
from chatflow_runtime.domain.normalisation import normalise

Floats = NDArray[np.float32]
Integers = NDArray[np.int32]

SATURATION = 1.2
LENGTH_SHARE = 0.3
QUESTION_WEIGHT = 3.0
"""How much a term in a question counts, compared with one in the answer or the topic."""
DENSE_BYTES = 32_000_000
"""Size up to which the postings are held as a matrix."""


@dataclass(frozen=True, slots=True)
class Postings:
    """The stored form. Term t has the postings starts[t] to starts[t + 1], each an entry and a weight."""

    terms: tuple[str, ...]
    rarity: Floats
    """(T,) inverse document frequency, counted in entries, times the weight of the term's kind."""
    starts: NDArray[np.int64]
    entries: Integers
    weights: Floats
    entry_count: int


@dataclass(frozen=True, slots=True)
class _Lengths:
    """Mean count of terms in an entry's questions together, and in its answer."""

    questions: float
    answer: float


class LexicalIndex:
    """Searches postings. Immutable, so any number of searches may run at once."""

    def __init__(self, postings: Postings) -> None:
        self._entry_count = postings.entry_count
        self._unseen = _rarity(postings.entry_count, 0)
        self._terms = {
            term: (number, rarity)
            for number, (term, rarity) in enumerate(zip(postings.terms, postings.rarity.tolist(), strict=True))
        }
        self._rows = _dense(postings)
        bounds = postings.starts.tolist()
        slices = [slice(start, end) for start, end in pairwise(bounds)] if self._rows is None else []
        self._entries = [postings.entries[part] for part in slices]
        self._weights = [postings.weights[part] for part in slices]

    def scores(self, texts: Sequence[str]) -> Floats:
        """(n, E) BM25F of each entry for each normalised text, in 0 to 1; 0 without any common term."""
        found: list[list[int]] = []
        perfect: list[float] = []
        for text in texts:
            numbers: list[int] = []
            total = 0.0
            for term in terms(text):
                known = self._terms.get(term)
                if known is None:
                    total += self._unseen * (SECONDARY_WEIGHT if is_secondary(term) else 1.0)
                else:
                    numbers.append(known[0])
                    total += known[1]
            found.append(numbers)
            perfect.append(total or 1.0)
        sums = self._by_postings(found) if self._rows is None else _by_rows(self._rows, found)
        sums /= np.array(perfect, dtype=np.float32)[:, None]
        return sums

    def _by_postings(self, found: Sequence[Sequence[int]]) -> Floats:
        """(n, E) sums of the weights of each text's terms."""
        sums = np.zeros((len(found), self._entry_count), dtype=np.float32)
        for row, numbers in zip(sums, found, strict=True):
            if numbers:
                entries = np.concatenate([self._entries[number] for number in numbers])
                weights = np.concatenate([self._weights[number] for number in numbers])
                row += np.bincount(entries, weights, self._entry_count)
        return sums


def _by_rows(rows: Floats, found: Sequence[Sequence[int]]) -> Floats:
    """The same from a dense matrix, whose last row is zero and ends every text, so that none is empty."""
    ids: list[int] = []
    starts: list[int] = []
    for numbers in found:
        starts.append(len(ids))
        ids += numbers
        ids.append(len(rows) - 1)
    sums: Floats = np.add.reduceat(rows.take(ids, axis=0), starts, axis=0)
    return sums


def _dense(postings: Postings) -> Floats | None:
    """The postings as a matrix (T + 1, E), the last row zero, where that is small: its rows are quicker to add up."""
    if len(postings.terms) * postings.entry_count * 4 > DENSE_BYTES:
        return None
    rows = np.zeros((len(postings.terms) + 1, postings.entry_count), dtype=np.float32)
    numbers = np.repeat(np.arange(len(postings.terms)), np.diff(postings.starts))
    rows[numbers, postings.entries] = postings.weights
    return rows


def build_postings(entries: Sequence[Entry]) -> Postings:
    """The postings of all entries. Texts are read twice, so that their terms need not all be held."""
    frequencies, lengths = _statistics(entries)
    rarity = {
        term: _rarity(len(entries), count) * (SECONDARY_WEIGHT if is_secondary(term) else 1.0)
        for term, count in sorted(frequencies.items())
    }
    numbers = {term: number for number, term in enumerate(rarity)}
    rows, columns, weights = array("i"), array("i"), array("f")
    for column, entry in enumerate(entries):
        saturated = _saturated(*_fields(entry), lengths)
        rows.extend(numbers[term] for term in saturated)
        columns.extend([column] * len(saturated))
        weights.extend(share * rarity[term] for term, share in saturated.items())
    order = np.argsort(np.asarray(rows, dtype=np.int32), kind="stable")
    counts = np.bincount(np.asarray(rows, dtype=np.int32), minlength=len(rarity))
    return Postings(
        terms=tuple(rarity),
        rarity=np.array(list(rarity.values()), dtype=np.float32),
        starts=np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
        entries=np.asarray(columns, dtype=np.int32)[order],
        weights=np.asarray(weights, dtype=np.float32)[order],
        entry_count=len(entries),
    )


def _statistics(entries: Sequence[Entry]) -> tuple[dict[str, int], _Lengths]:
    """(in how many entries each term occurs, mean lengths)."""
    frequencies: dict[str, int] = {}
    question_total = answer_total = 0
    for entry in entries:
        questions, answer, topic = _fields(entry)
        for term in set().union(*questions, answer, topic):
            frequencies[term] = frequencies.get(term, 0) + 1
        question_total += sum(sum(bag.values()) for bag in questions)
        answer_total += sum(answer.values())
    count = len(entries) or 1
    return frequencies, _Lengths(question_total / count or 1.0, answer_total / count or 1.0)


def _fields(entry: Entry) -> tuple[list[dict[str, int]], dict[str, int], dict[str, int]]:
    """The terms of each variant, of the answer and of the topic."""
    return (
        [terms(normalise(variant)) for variant in entry.variants],
        terms(normalise(entry.text)),
        terms(normalise(entry.topic or "")),
    )


def _saturated(
    questions: list[dict[str, int]], answer: dict[str, int], topic: dict[str, int], lengths: _Lengths
) -> dict[str, float]:
    """The terms of an entry with their saturated frequency over all fields, below 1."""
    question_length = sum(sum(bag.values()) for bag in questions)
    question_scale = QUESTION_WEIGHT / (1 - LENGTH_SHARE + LENGTH_SHARE * question_length / lengths.questions)
    answer_scale = 1 / (1 - LENGTH_SHARE + LENGTH_SHARE * sum(answer.values()) / lengths.answer)
    sums: dict[str, float] = {}
    for bag, scale in (*((bag, question_scale) for bag in questions), (answer, answer_scale), (topic, 1.0)):
        for term, count in bag.items():
            sums[term] = sums.get(term, 0.0) + count * scale
    return {term: value / (SATURATION + value) for term, value in sums.items()}


def _rarity(entry_count: int, frequency: int) -> float:
    return math.log(1 + (entry_count - frequency + 0.5) / (frequency + 0.5))
