"""The trained intent model: texts in, calibrated predictions out. Used by the gateway and by the model server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Self, assert_never

import numpy as np
from chatflow_api.inference import ALTERNATIVES

from .artefact import ENCODER, Evidence, ReportSummary, StoredModel, read_artefact
from .calibration import softmax
from .encoders import Encoder, load_encoder
from .errors import EncoderError
from .features import Featuriser, Float32, GramBatch
from .neighbours import GramNeighbours, VectorNeighbours, centred
from .text import gist, normalise
from .topics import evidence

PROBES = ("where is my order", "我的订单到哪里了")
"""Texts whose vectors tell whether an encoder is the one that a model was trained with."""
_SAME_VECTOR = 0.99


@dataclass(frozen=True, slots=True)
class Prediction:
    """What one text is about."""

    intent: str
    """The most probable intent, never the out-of-scope class."""
    confidence: float
    """Calibrated probability of that intent; the out-of-scope class takes its share of the whole."""
    out_of_scope: float
    """Probability that the text is about none of the intents."""
    is_in_scope: bool
    """Whether the intent is at least as probable as out-of-scope."""
    alternatives: tuple[tuple[str, float], ...]
    """The best intents and their probabilities, best first."""
    embedding: Float32 | None
    """The encoder's vector of the normalised text, length 1; None in light mode."""


class LinearScorer:
    """Logits of texts from n-grams and vectors; `training` uses it too, so that both score alike."""

    def __init__(self, featuriser: Featuriser, rows: Float32, dense: Float32, bias: Float32) -> None:
        """`rows` are (n-grams, classes) weights times idf, `dense` (dimensions, classes), `bias` (classes,); the
        classes are those of several models, one beside the other."""
        self.featuriser, self.dense, self.bias = featuriser, dense, bias
        # One gather serves weights and squared lengths: the last column holds idf squared, the last row is padding.
        self._table = np.zeros((len(rows) + 1, rows.shape[1] + 1), dtype=np.float32)
        self._table[:-1, :-1] = rows
        self._table[:-1, -1] = featuriser.idf**2

    def logits(self, batch: GramBatch, vectors: Float32) -> tuple[Float32, Float32]:
        """(n, classes) logits of n texts and their (n, dimensions) vectors, and the lengths of the texts' segments."""
        sums = np.add.reduceat(self._table.take(batch.ids, axis=0), batch.starts, axis=0)
        lengths = self.featuriser.lengths(batch, sums[:, -1])
        sums /= lengths[:, None]
        logits = sums[0::2, :-1] + sums[1::2, :-1]
        logits += self.bias
        if self.dense.shape[0]:
            logits += vectors @ self.dense
        return np.asarray(logits, dtype=np.float32), lengths


class IntentModel:
    """An intent model in memory. Immutable once loaded, and safe to share between threads."""

    def __init__(self, stored: StoredModel, encoder: Encoder) -> None:
        if encoder.dimensions != stored.dense.shape[0] or encoder.name != stored.encoder:
            raise EncoderError(
                f"the model was trained with encoder {stored.encoder} of {stored.dense.shape[0]} dimensions,"
                f" not {encoder.name} of {encoder.dimensions}; train it again, or load it with its own encoder"
            )
        self.encoder = encoder
        self.version: str = stored.version
        self.labels: tuple[str, ...] = stored.labels
        self.threshold: float = stored.threshold
        self.report: ReportSummary = stored.report
        self.trained_on = stored.trained_on
        self.labelled_as = stored.labelled_as
        self._mean = stored.mean
        self._classes = len(stored.labels) + 1
        self._temperature = np.float32(stored.calibration.temperature)
        self._bias = np.float32(stored.calibration.out_of_scope_bias)
        self._weights = dict(zip(stored.evidence, stored.calibration.weights, strict=True))
        self._topic_starts = stored.topic_starts
        self._featuriser = Featuriser(stored.words, stored.pieces, stored.idf, stored.unknown_idf)
        self._scorer = LinearScorer(self._featuriser, stored.rows, stored.dense, stored.bias)
        self._by_vectors = VectorNeighbours(stored.examples.astype(np.float32), stored.starts)
        self._by_grams = GramNeighbours(
            stored.idf, stored.gram_pointers, stored.gram_ids, stored.gram_weights.astype(np.float32), stored.starts
        )

    @classmethod
    def load(cls, folder: Path, encoder: Encoder | None = None) -> Self:
        """The model of an artefact folder; a given encoder is shared instead of loading the artefact's own.

        Raises ArtefactError for a missing, damaged or newer artefact and EncoderError for an encoder that cannot be
        loaded or gives other vectors than the one used in training.
        """
        stored = read_artefact(folder)
        if encoder is None:
            own, named = folder / ENCODER, stored.encoder_path
            encoder = load_encoder(stored.encoder, own if own.is_dir() else Path(named) if named else None)
        model = cls(stored, encoder)
        likeness = (encoder.encode(PROBES) * stored.probes).sum(axis=1)
        if encoder.dimensions and likeness.min() < _SAME_VECTOR:
            raise EncoderError(
                f"encoder {encoder.name} gives other vectors than the one that {folder} was trained with;"
                " train the model again"
            )
        return model

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """One prediction a text, in order; a batch costs less than its texts one by one."""
        if not texts:
            return []
        cleaned = [gist(normalise(text)) for text in texts]
        vectors = self.encoder.encode(cleaned)
        batch = self._featuriser.batch(cleaned)
        logits, lengths = self._scorer.logits(batch, vectors)
        total = logits[:, : self._classes]
        for kind, weight in self._weights.items():
            total += np.float32(weight) * self._evidence(kind, logits, batch, lengths, vectors)
        total[:, -1] += self._bias
        total /= self._temperature
        probabilities = softmax(total)
        best = np.argsort(-probabilities[:, :-1], axis=1)[:, :ALTERNATIVES].tolist()
        embeddings = vectors if self.encoder.dimensions else repeat(None)
        return [
            self._prediction(row, columns, embedding)
            for row, columns, embedding in zip(probabilities.tolist(), best, embeddings, strict=False)
        ]

    def _evidence(
        self, kind: Evidence, logits: Float32, batch: GramBatch, lengths: Float32, vectors: Float32
    ) -> Float32:
        match kind:
            case Evidence.TOPICS:
                return evidence(logits[:, self._classes :], self._topic_starts)
            case Evidence.VECTORS:
                return self._by_vectors.likeness(centred(vectors, self._mean))
            case Evidence.GRAMS:
                return self._by_grams.likeness(batch, lengths)
            case _:
                assert_never(kind)

    def _prediction(self, row: list[float], columns: list[int], embedding: Float32 | None) -> Prediction:
        """A prediction from a row of probabilities and the columns of the best intents, best first."""
        alternatives = tuple([(self.labels[column], row[column]) for column in columns])
        intent, confidence = alternatives[0]
        return Prediction(intent, confidence, row[-1], confidence >= row[-1], alternatives, embedding)
