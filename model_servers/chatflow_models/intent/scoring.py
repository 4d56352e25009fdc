"""The trained intent model: texts in, calibrated predictions out. Used by the gateway and by the model server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Self

import numpy as np

from .artefact import ReportSummary, StoredModel, read_artefact
from .calibration import Calibration, softmax
from .encoders import Encoder, load_encoder
from .errors import EncoderError
from .features import Featuriser, Float32
from .neighbours import Neighbours, centred
from .text import normalise

ALTERNATIVES = 3
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
    """The three best intents and their probabilities, best first."""
    embedding: Float32 | None
    """The encoder's vector of the normalised text, length 1; None in light mode."""


class LinearScorer:
    """Logits of texts from n-grams and vectors; `training` uses it too, so that both score alike."""

    def __init__(self, featuriser: Featuriser, rows: Float32, dense: Float32, bias: Float32) -> None:
        """`rows` are (n-grams, classes) weights times idf, `dense` (dimensions, classes), `bias` (classes,)."""
        self.featuriser, self.dense, self.bias = featuriser, dense, bias
        # One gather serves weights and squared lengths: the last column holds idf squared, the last row is padding.
        self._table = np.zeros((len(rows) + 1, rows.shape[1] + 1), dtype=np.float32)
        self._table[:-1, :-1] = rows
        self._table[:-1, -1] = featuriser.idf**2

    def logits(self, texts: Sequence[str], vectors: Float32) -> Float32:
        """(n, classes) logits of normalised texts and their (n, dimensions) vectors."""
        batch = self.featuriser.batch(texts)
        sums = np.add.reduceat(self._table.take(batch.ids, axis=0), batch.starts, axis=0)
        sums /= self.featuriser.lengths(batch, sums[:, -1])[:, None]
        logits = sums[0::2, :-1] + sums[1::2, :-1]
        logits += self.bias
        if self.dense.shape[0]:
            logits += vectors @ self.dense
        return np.asarray(logits, dtype=np.float32)


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
        # The calibration is folded into the weights, so that scoring need not apply it.
        calibration = Calibration(stored.temperature, stored.out_of_scope_bias, stored.neighbour_weight)
        self._mean = stored.mean
        self._neighbour_weight = np.float32(calibration.neighbour_weight / calibration.temperature)
        self._neighbours = Neighbours(stored.examples.astype(np.float32), stored.starts)
        self._scorer = LinearScorer(
            Featuriser(stored.words, stored.pieces, stored.idf, stored.unknown_idf),
            calibration.scale(stored.rows),
            calibration.scale(stored.dense),
            calibration.scale_bias(stored.bias),
        )

    @classmethod
    def load(cls, folder: Path, encoder: Encoder | None = None) -> Self:
        """The model of an artefact folder; a given encoder is shared instead of loading another.

        Raises ArtefactError for a missing, damaged or newer artefact and EncoderError for an encoder that cannot be
        loaded or gives other vectors than the one used in training.
        """
        stored = read_artefact(folder)
        path = Path(stored.encoder_path) if stored.encoder_path else None
        encoder = encoder or load_encoder(stored.encoder, path)
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
        cleaned = [normalise(text) for text in texts]
        vectors = self.encoder.encode(cleaned)
        logits = self._scorer.logits(cleaned, vectors)
        if self._neighbour_weight:
            logits += self._neighbour_weight * self._neighbours.likeness(centred(vectors, self._mean))
        probabilities = softmax(logits)
        best = np.argsort(-probabilities[:, :-1], axis=1)[:, :ALTERNATIVES].tolist()
        embeddings = vectors if self.encoder.dimensions else repeat(None)
        return [
            self._prediction(row, columns, embedding)
            for row, columns, embedding in zip(probabilities.tolist(), best, embeddings, strict=False)
        ]

    def _prediction(self, row: list[float], columns: list[int], embedding: Float32 | None) -> Prediction:
        """A prediction from a row of probabilities and the columns of the best intents, best first."""
        alternatives = tuple([(self.labels[column], row[column]) for column in columns])
        intent, confidence = alternatives[0]
        return Prediction(intent, confidence, row[-1], confidence >= row[-1], alternatives, embedding)
