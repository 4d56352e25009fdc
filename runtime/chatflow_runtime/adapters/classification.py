"""Intent classification in the gateway's own process, micro-batched: what arrives in one loop tick is one batch."""

from __future__ import annotations

from collections.abc import Sequence

from chatflow_models.intent import IntentModel, Prediction
from chatflow_models.intent.batching import Batcher, BatchFailed, Limits

from chatflow_runtime.errors import ArtefactInvalid
from chatflow_runtime.ports import UNKNOWN, Classification

LIMITS = Limits(items=32, size=1000)
"""Texts a batch, and their characters in all but for the last: enough to share the encoder's weight streaming, few
enough to keep the loop responsive."""


class InProcessClassifier:
    """Classifies on the event loop. Without a model every text is UNKNOWN, and retrieval decides alone."""

    def __init__(self, model: IntentModel | None) -> None:
        self._model = model
        self._batcher: Batcher[str, Classification] = Batcher(self._classified, LIMITS, size_of=len)

    @property
    def version(self) -> str:
        """The model's version."""
        return NoClassifier.version if self._model is None else self._model.version

    def swap(self, model: IntentModel | None) -> None:
        """Use another model from the next batch on, or none."""
        self._model = model

    async def classify(self, text: str) -> Classification:
        """The classification of a normalised text."""
        if self._model is None:
            return UNKNOWN
        try:
            return (await self._batcher.submit([text]))[0]
        except BatchFailed as error:
            raise ArtefactInvalid(f"the intent model cannot classify: {error}") from error

    def _classified(self, texts: Sequence[str]) -> list[Classification]:
        if self._model is None:
            # It was taken away while they waited.
            return [UNKNOWN] * len(texts)
        return [_classification(prediction) for prediction in self._model.predict(texts)]


def _classification(prediction: Prediction) -> Classification:
    return Classification(
        intent=prediction.intent,
        confidence=prediction.confidence,
        is_in_scope=prediction.is_in_scope,
        alternatives=tuple(prediction.alternatives),
        embedding=prediction.embedding,
    )


class NoClassifier:
    """A flow without intents: every text is UNKNOWN, and retrieval decides alone."""

    version = "none"

    async def classify(self, text: str) -> Classification:  # noqa: ARG002  The port's signature.
        """UNKNOWN."""
        return UNKNOWN
