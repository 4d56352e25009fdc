"""Lexical search: BM25F over whole entries, and the cosine with each question variant. `index` builds and stores it.

Both are sums over the terms of a question, so one table of postings serves both: columns 0 to E-1 are entries, those
from E on are variants. Scores lie in 0 to 1, because they are divided by what a perfect match would reach.
BM25F: Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond, 2009, section 3.6.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
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
    """The stored form. Term t has the postings starts[t] to starts[t + 1]; `owners` gives each variant's entry, in
    ascending order, and every entry has at least one variant."""

    terms: tuple[str, ...]
    rarity: Floats
    """(T,) inverse document frequency, counted in entries, times the weight of the term's kind."""
    starts: NDArray[np.int64]
    columns: Integers
    weights: Floats
    owners: Integers
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
        self._column_count = postings.entry_count + len(postings.owners)
        self._first_variants = np.flatnonzero(np.diff(postings.owners, prepend=-1))
        self._unseen = _rarity(postings.entry_count, 0)
        self._terms = {
            term: (number, rarity)
            for number, (term, rarity) in enumerate(zip(postings.terms, postings.rarity.tolist(), strict=True))
        }
        self._rows = _dense(postings, self._column_count)
        bounds = postings.starts.tolist()
        slices = [slice(start, end) for start, end in pairwise(bounds)] if self._rows is None else []
        self._columns = [postings.columns[part] for part in slices]
        self._weights = [postings.weights[part] for part in slices]

    def scores(self, text: str) -> tuple[Floats, Floats] | None:
        """(BM25F of each entry, cosine of each entry's best variant), both (E,) and in 0 to 1; None without any
        common term. `text` is normalised."""
        numbers: list[int] = []
        total = squares = 0.0
        for term in terms(text):
            known = self._terms.get(term)
            if known is None:
                rarity = self._unseen * (SECONDARY_WEIGHT if is_secondary(term) else 1.0)
            else:
                numbers.append(known[0])
                rarity = known[1]
            total += rarity
            squares += rarity * rarity
        if not numbers:
            return None
        sums = self._sums(numbers)
        best = np.maximum.reduceat(sums[self._entry_count :], self._first_variants)
        return sums[: self._entry_count] * np.float32(1 / total), best * np.float32(1 / math.sqrt(squares))

    def _sums(self, numbers: list[int]) -> Floats:
        if self._rows is not None:
            total: Floats = np.add.reduce(self._rows.take(numbers, axis=0), axis=0)
            return total
        columns = np.concatenate([self._columns[number] for number in numbers])
        weights = np.concatenate([self._weights[number] for number in numbers])
        return np.bincount(columns, weights, self._column_count).astype(np.float32)


def _dense(postings: Postings, column_count: int) -> Floats | None:
    """The postings as a matrix (T, columns) where that is small: adding up its rows takes half as long."""
    if len(postings.terms) * column_count * 4 > DENSE_BYTES:
        return None
    rows = np.zeros((len(postings.terms), column_count), dtype=np.float32)
    numbers = np.repeat(np.arange(len(postings.terms)), np.diff(postings.starts))
    rows[numbers, postings.columns] = postings.weights
    return rows


def build_postings(entries: Sequence[Entry]) -> Postings:
    """The postings of all entries and variants. Texts are read twice, so that their terms need not all be held."""
    frequencies, lengths = _statistics(entries)
    rarity = {
        term: _rarity(len(entries), count) * (SECONDARY_WEIGHT if is_secondary(term) else 1.0)
        for term, count in sorted(frequencies.items())
    }
    numbers = {term: number for number, term in enumerate(rarity)}
    rows, columns, weights = array("i"), array("i"), array("f")
    owners = array("i")
    for owner, entry in enumerate(entries):
        for column, weighted in _columns(entry, owner, len(entries) + len(owners), rarity, lengths):
            rows.extend(numbers[term] for term in weighted)
            columns.extend([column] * len(weighted))
            weights.extend(weighted.values())
        owners.extend([owner] * len(entry.variants))
    order = np.argsort(np.asarray(rows, dtype=np.int32), kind="stable")
    counts = np.bincount(np.asarray(rows, dtype=np.int32), minlength=len(rarity))
    return Postings(
        terms=tuple(rarity),
        rarity=np.array(list(rarity.values()), dtype=np.float32),
        starts=np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
        columns=np.asarray(columns, dtype=np.int32)[order],
        weights=np.asarray(weights, dtype=np.float32)[order],
        owners=np.asarray(owners, dtype=np.int32),
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


def _columns(
    entry: Entry, column: int, first_variant: int, rarity: dict[str, float], lengths: _Lengths
) -> Iterator[tuple[int, dict[str, float]]]:
    """(column, weight of each term) of the entry, then of each of its variants."""
    questions, answer, topic = _fields(entry)
    saturated = _saturated(questions, answer, topic, lengths)
    yield column, {term: share * rarity[term] for term, share in saturated.items()}
    for number, bag in enumerate(questions, first_variant):
        weights = {term: (1 + math.log(count)) * rarity[term] for term, count in bag.items()}
        length = math.sqrt(sum(weight * weight for weight in weights.values())) or 1.0
        yield number, {term: weight * rarity[term] / length for term, weight in weights.items()}


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
