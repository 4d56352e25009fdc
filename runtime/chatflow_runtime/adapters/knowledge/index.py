"""The knowledge index: built from knowledge, kept on disk, searched. Called by `chatflow up`, the job that builds an
index, and `retriever`."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from chatflow_runtime.adapters.knowledge import scoring, storage
from chatflow_runtime.adapters.knowledge.entries import Entry, Knowledge
from chatflow_runtime.adapters.knowledge.lexical import LexicalIndex, build_postings
from chatflow_runtime.adapters.knowledge.segmentation import is_unspaced
from chatflow_runtime.adapters.knowledge.vectors import (
    EXACT_ROWS,
    PROBE,
    Encoder,
    Similarities,
    VectorIndex,
    build_approximate,
    centred,
    encoded,
)
from chatflow_runtime.errors import ArtefactInvalid
from chatflow_runtime.ports import Passage, Query

Floats = NDArray[np.float32]
Integers = NDArray[np.int32]

LEXICAL_CANDIDATES = 200
"""Entries that lexical search adds to those that faiss proposes."""
_SORTED_WHOLE = 1_000


@dataclass(frozen=True, slots=True)
class BuiltIndex:
    """An index on disk."""

    version: str
    folder: Path
    counts: storage.Counts


def build_index(
    knowledge: Knowledge, encoder: Encoder | None, out: Path, *, exact_rows: int = EXACT_ROWS
) -> BuiltIndex:
    """Writes `out/<version>/`, unless it is there and whole. The version is a hash of the content, the encoder and the
    schema. An encoder of no dimensions stands for none. With more than `exact_rows` vectors faiss is used. Raises
    ArtefactInvalid when it is needed and missing."""
    entries = msgspec.msgpack.encode(knowledge.entries)
    probe = None if encoder is None else np.asarray(encoder.encode([PROBE])[0], dtype=np.float32)
    if probe is None or probe.size == 0:
        encoder = probe = None
    version = _version(entries, probe, exact_rows)
    folder = out / version
    if folder.exists():
        try:
            return BuiltIndex(version, folder, storage.read_manifest(folder).counts)
        except ArtefactInvalid:
            pass  # It is written anew.
    counts = _counts(knowledge.entries, has_vectors=encoder is not None)

    def fill(work: Path) -> None:
        storage.write_text_index(work, entries, build_postings(knowledge.entries))
        if encoder is None or probe is None or not knowledge.entries:
            return
        rows, centre = encoded(knowledge.entries, encoder)
        np.save(work / storage.VECTORS, rows)
        np.save(work / storage.CENTRE, centre)
        np.save(work / storage.PROBE, probe)
        if len(rows) > exact_rows:
            build_approximate(rows, work / storage.APPROXIMATE)

    storage.write(folder, version, counts, fill)
    return BuiltIndex(version, folder, counts)


class KnowledgeIndex:
    """An index in memory. Immutable: a retriever exchanges it for another."""

    def __init__(
        self, version: str, entries: tuple[Entry, ...], lexical: LexicalIndex, vectors: VectorIndex | None
    ) -> None:
        self.version = version
        self.entries = entries
        self.lexical = lexical
        self.vectors = vectors
        names = sorted({entry.intent for entry in entries if entry.intent})
        self.intents = {name: place for place, name in enumerate(names)}
        self.intent_of = np.array([self.intents.get(entry.intent or "", len(names)) for entry in entries], np.intp)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The index that `build_index` wrote. Raises ArtefactInvalid when it is incomplete, damaged or of another
        schema, or needs faiss where that is not installed."""
        manifest = storage.read_manifest(folder)
        entries, postings = storage.read_text_index(folder)
        vectors = storage.read_vectors(folder, entries) if manifest.counts.vectors else None
        return cls(manifest.version, entries, LexicalIndex(postings), vectors)

    @classmethod
    def empty(cls) -> Self:
        """The index of a flow whose knowledge is not there yet: it finds nothing."""
        return cls("none", (), LexicalIndex(build_postings(())), None)

    @property
    def dimension(self) -> int | None:
        """Length of the vectors that questions are compared by; None when there are none (light mode)."""
        return self.vectors.dimension if self.vectors else None

    @property
    def probe(self) -> Floats | None:
        """What the encoder of those vectors makes of PROBE; None when there are none."""
        return self.vectors.probe if self.vectors else None

    @property
    def is_heavy(self) -> bool:
        """Whether a search takes more than a millisecond or so."""
        return len(self.entries) > 5_000

    def search(self, queries: Sequence[Query], top_k: int) -> list[list[Passage]]:
        """For each question its best passages, best first; an entry that matches in nothing is not among them.

        Together, questions share one pass over the vectors. An embedding of another length than the index's is left
        aside, and the question searched for by its words.
        """
        found: list[list[Passage]] = [[] for _ in queries]
        if not self.entries:
            return found
        usable = [
            (number, query.embedding)
            for number, query in enumerate(queries)
            if query.embedding is not None and len(query.embedding) == self.dimension
        ]
        if self.vectors is not None and usable:
            questions = centred(np.stack([embedding for _, embedding in usable]), self.vectors.centre)
            by_both = [number for number, _ in usable]
            asked = [queries[number] for number in by_both]
            search = self._exactly if self.vectors.is_exact else self._approximately
            _put(found, by_both, search(self.vectors, asked, top_k, questions))
        else:
            by_both = []
        by_words = sorted(set(range(len(queries))).difference(by_both))
        if by_words:
            asked = [queries[number] for number in by_words]
            lexical = self.lexical.scores([query.text for query in asked])
            evidence = _by_script(scoring.LIGHT, asked) * lexical
            _put(found, by_words, self._passages(asked, top_k, evidence, scoring.LIGHT))
        return found

    def _exactly(
        self, vectors: VectorIndex, queries: Sequence[Query], top_k: int, questions: Floats
    ) -> list[list[Passage]]:
        """The search among all entries."""
        lexical = self.lexical.scores([query.text for query in queries])
        evidence = _by_both(queries, lexical, vectors.all(questions))
        return self._passages(queries, top_k, evidence, scoring.HYBRID)

    def _approximately(
        self, vectors: VectorIndex, queries: Sequence[Query], top_k: int, questions: Floats
    ) -> list[list[Passage]]:
        """The search, for each question, among the entries that faiss or lexical search proposes."""
        found: list[list[Passage]] = []
        for query, question in zip(queries, questions, strict=True):
            lexical = self.lexical.scores([query.text])
            kept = min(LEXICAL_CANDIDATES, len(self.entries))
            best = np.argpartition(lexical[0], -kept)[-kept:]
            candidates = np.union1d(vectors.proposed(question), best[lexical[0][best] > 0]).astype(np.int32)
            evidence = _by_both([query], lexical[:, candidates], vectors.some(question, candidates))
            found += self._passages([query], top_k, evidence, scoring.HYBRID, candidates)
        return found

    def _passages(
        self,
        queries: Sequence[Query],
        top_k: int,
        evidence: Floats,
        weights: scoring.Weights,
        candidates: Integers | None = None,
    ) -> list[list[Passage]]:
        """The best of the (n, candidates) by evidence and intent; without `candidates` they are all entries."""
        agreement = np.array([scoring.agreement(query.intents, self.intents) for query in queries], dtype=np.float32)
        agreement *= weights.intent
        logits = agreement.take(self.intent_of if candidates is None else self.intent_of[candidates], axis=1)
        logits += evidence
        logits += weights.base
        logits[evidence <= 0] = -np.inf
        order = _best(logits, 2 * top_k)
        places = order if candidates is None else candidates[order]
        rows = np.arange(len(order))[:, None]
        best = zip(places.tolist(), logits[rows, order].tolist(), strict=True)
        return [self._distinct(top_k, *row) for row in best]

    def _distinct(self, top_k: int, places: Sequence[int], logits: Sequence[float]) -> list[Passage]:
        """The first passages that anything speaks for, none with the same title and text as an earlier one."""
        found: dict[tuple[str, str], Passage] = {}
        for place, logit in zip(places, logits, strict=True):
            entry = self.entries[place]
            if logit > -math.inf and (entry.title, entry.text) not in found:
                found[entry.title, entry.text] = _passage(entry, scoring.score(logit))
                if len(found) == top_k:
                    break
        return list(found.values())


def _put(found: list[list[Passage]], numbers: Sequence[int], passages: Sequence[list[Passage]]) -> None:
    for number, best in zip(numbers, passages, strict=True):
        found[number] = best


def _best(logits: Floats, count: int) -> NDArray[np.intp]:
    """Where the highest values of each row stand, highest first."""
    if logits.shape[1] <= _SORTED_WHOLE:
        return (-logits).argsort(axis=1)[:, :count]
    best = logits.argpartition(-count, axis=1)[:, -count:]
    rows = np.arange(len(best))[:, None]
    return best[rows, logits[rows, best].argsort(axis=1)[:, ::-1]]


def _by_script(weights: scoring.Weights, queries: Sequence[Query]) -> Floats:
    """(n, 1) weights of lexical search."""
    chosen = [[weights.unspaced if is_unspaced(query.text) else weights.spaced] for query in queries]
    return np.array(chosen, dtype=np.float32)


def _by_both(queries: Sequence[Query], lexical: Floats, similarities: Similarities) -> Floats:
    """(n, candidates): what speaks for each, before the base and the intent."""
    weights = scoring.HYBRID
    evidence: Floats = _by_script(weights, queries) * lexical
    evidence += weights.question * similarities.best
    evidence += weights.questions * similarities.mean
    evidence += weights.answer * similarities.answer
    return evidence


def _passage(entry: Entry, score: float) -> Passage:
    return Passage(entry.id, entry.title, entry.text, score, entry.kind, entry.source, entry.url, entry.intent)


def _counts(entries: Sequence[Entry], *, has_vectors: bool) -> storage.Counts:
    pairs = sum(entry.kind == "pair" for entry in entries)
    variants = sum(len(entry.variants) for entry in entries)
    return storage.Counts(
        entries=len(entries),
        pairs=pairs,
        documents=len(entries) - pairs,
        variants=variants,
        vectors=variants + len(entries) if has_vectors else 0,
    )


def _version(entries: bytes, probe: Floats | None, exact_rows: int) -> str:
    digest = hashlib.blake2b(entries, digest_size=8, person=b"knowledge")
    digest.update(f"{storage.SCHEMA} {exact_rows}".encode())
    if probe is not None:
        digest.update(probe.astype(np.float16).tobytes())
    return digest.hexdigest()
