"""The knowledge index: built from knowledge, kept on disk, searched. Called by `chatflow up`, the job that builds an
index, and `retriever`."""

from __future__ import annotations

import hashlib
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
from chatflow_runtime.adapters.knowledge.vectors import (
    EXACT_ROWS,
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
_PROBE = "退款多久能到账？ How long does a refund take?"
"""What an encoder makes of it tells whether it is the one that an index was built with."""


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
    probe = None if encoder is None else np.asarray(encoder.encode([_PROBE]), dtype=np.float16)
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
        if encoder is None or not knowledge.entries:
            return
        rows, centre = encoded(knowledge.entries, encoder)
        np.save(work / storage.VECTORS, rows)
        np.save(work / storage.CENTRE, centre)
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
        self._lexical = lexical
        self._vectors = vectors
        intents = np.array([entry.intent or "" for entry in entries])
        self._no_agreement = np.where(intents == "", 0.0, scoring.OTHER_INTENT).astype(np.float32)
        self._agreements = {
            str(intent): np.where(intents == intent, scoring.SAME_INTENT, self._no_agreement).astype(np.float32)
            for intent in set(intents.tolist()) - {""}
        }

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The index that `build_index` wrote. Raises ArtefactInvalid when it is incomplete, damaged or of another
        schema, or needs faiss where that is not installed."""
        manifest = storage.read_manifest(folder)
        entries, postings = storage.read_text_index(folder)
        vectors = storage.read_vectors(folder, postings) if manifest.counts.vectors else None
        return cls(manifest.version, entries, LexicalIndex(postings), vectors)

    @property
    def dimension(self) -> int | None:
        """Length of the vectors that questions are compared by; None when there are none (light mode)."""
        return self._vectors.dimension if self._vectors else None

    @property
    def is_heavy(self) -> bool:
        """Whether a search takes more than a millisecond or so."""
        return len(self.entries) > 5_000

    def search(self, queries: Sequence[Query], top_k: int) -> list[list[Passage]]:
        """For each question its best passages, best first; an entry that matches in nothing is not among them.

        Together, questions share one pass over the vectors. An embedding of another length than the index's is left
        aside, and the question searched for by its words.
        """
        if not self.entries:
            return [[] for _ in queries]
        usable = [
            (number, query.embedding)
            for number, query in enumerate(queries)
            if query.embedding is not None and len(query.embedding) == self.dimension
        ]
        if self._vectors is None or not usable:
            return [self._fused(query, top_k, None) for query in queries]
        questions = centred(np.stack([embedding for _, embedding in usable]), self._vectors.centre)
        rows = {number: row for row, (number, _) in enumerate(usable)}
        if not self._vectors.is_exact:
            return [
                self._proposed(self._vectors, query, top_k, questions[rows[number]])
                if number in rows
                else self._fused(query, top_k, None)
                for number, query in enumerate(queries)
            ]
        compared = self._vectors.all(questions)
        similar = {number: compared[row] for number, row in rows.items()}
        return [self._fused(query, top_k, similar.get(number)) for number, query in enumerate(queries)]

    def _proposed(self, vectors: VectorIndex, query: Query, top_k: int, question: Floats) -> list[Passage]:
        """The search of one question among the entries that faiss or lexical search proposes."""
        candidates = vectors.proposed(question)
        lexical = self._lexical.scores(query.text)
        if lexical is not None:
            kept = min(LEXICAL_CANDIDATES, len(self.entries))
            best = np.argpartition(lexical[0], -kept)[-kept:]
            candidates = np.union1d(candidates, best[lexical[0][best] > 0]).astype(np.int32)
            lexical = lexical[0][candidates], lexical[1][candidates]
        evidence = _evidence(lexical, vectors.some(question, candidates), len(candidates))
        return self._passages(query, top_k, evidence, scoring.HYBRID.base, candidates)

    def _fused(self, query: Query, top_k: int, similarities: Similarities | None) -> list[Passage]:
        weights = scoring.LIGHT if similarities is None else scoring.HYBRID
        lexical = self._lexical.scores(query.text)
        if lexical is None and similarities is None:
            return []
        evidence = _evidence(lexical, similarities, len(self.entries))
        return self._passages(query, top_k, evidence, weights.base, None)

    def _passages(
        self, query: Query, top_k: int, evidence: Floats, base: float, candidates: Integers | None
    ) -> list[Passage]:
        logits = evidence + base
        if query.intent is not None:
            agreement = self._agreements.get(query.intent, self._no_agreement)
            logits += agreement if candidates is None else agreement[candidates]
        order = _best(logits, 2 * top_k)
        places = order if candidates is None else candidates[order]
        found: dict[tuple[str, str], Passage] = {}
        for place, logit, support in zip(
            places.tolist(), logits[order].tolist(), evidence[order].tolist(), strict=True
        ):
            entry = self.entries[place]
            if support > 0 and (entry.title, entry.text) not in found:
                found[entry.title, entry.text] = _passage(entry, scoring.score(logit))
                if len(found) == top_k:
                    break
        return list(found.values())


def _best(logits: Floats, count: int) -> NDArray[np.intp]:
    """Where the highest values stand, highest first."""
    if len(logits) <= _SORTED_WHOLE:
        return np.argsort(-logits)[:count]
    best = np.argpartition(logits, -count)[-count:]
    return best[np.argsort(-logits[best])]


def _evidence(lexical: tuple[Floats, Floats] | None, similarities: Similarities | None, count: int) -> Floats:
    """What speaks for each of `count` entries, before the base and the intent."""
    weights = scoring.LIGHT if similarities is None else scoring.HYBRID
    evidence: Floats = np.zeros(count, dtype=np.float32)
    if lexical is not None:
        evidence = weights.entry * lexical[0] + weights.variant * lexical[1]
    if similarities is not None:
        evidence = evidence + weights.question * similarities.best + weights.questions * similarities.mean
        evidence = evidence + weights.answer * similarities.answer
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


def _version(entries: bytes, probe: NDArray[np.float16] | None, exact_rows: int) -> str:
    digest = hashlib.blake2b(entries, digest_size=8, person=b"knowledge")
    digest.update(f"{storage.SCHEMA} {exact_rows}".encode())
    if probe is not None:
        digest.update(probe.tobytes())
    return digest.hexdigest()
