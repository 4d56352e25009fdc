"""Intent classification in the gateway's own process, micro-batched: what arrives in one loop tick is one batch."""

from __future__ import annotations

import asyncio
from collections import deque

from chatflow_models.intent import IntentModel

from chatflow_runtime.errors import ArtefactInvalid
from chatflow_runtime.ports import UNKNOWN, Classification

MAX_BATCH, MAX_BATCH_LENGTH = 32, 1000
"""Texts a batch, and their characters in all but for the last: enough to share the encoder's weight streaming, few
enough to keep the loop responsive."""


class InProcessClassifier:
    """Classifies on the event loop. Without a model every text is UNKNOWN, and retrieval decides alone."""

    def __init__(self, model: IntentModel | None) -> None:
        self._model = model
        self._pending: deque[tuple[str, asyncio.Future[Classification]]] = deque()
        self._is_scheduled = False

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
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Classification] = loop.create_future()
        self._pending.append((text, future))
        if not self._is_scheduled:
            self._is_scheduled = True
            loop.call_soon(self._flush, loop)
        return await future

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        batch: list[tuple[str, asyncio.Future[Classification]]] = []
        length = 0
        while self._pending and len(batch) < MAX_BATCH and length < MAX_BATCH_LENGTH:
            text, future = self._pending.popleft()
            # A turn whose user has left is not classified.
            if not future.done():
                batch.append((text, future))
                length += len(text)
        if self._pending:
            loop.call_soon(self._flush, loop)
        else:
            self._is_scheduled = False
        if batch and self._model is not None:
            _classify(self._model, batch)
            return
        for _, future in batch:
            # The model was taken away while they waited.
            future.set_result(UNKNOWN)


def _classify(model: IntentModel, batch: list[tuple[str, asyncio.Future[Classification]]]) -> None:
    try:
        predictions = model.predict([text for text, _ in batch])
    except Exception as error:  # noqa: BLE001  Each waiting caller gets it; none may wait for ever.
        for _, future in batch:
            future.set_exception(ArtefactInvalid(f"the intent model cannot classify: {error}"))
        return
    for (_, future), prediction in zip(batch, predictions, strict=True):
        future.set_result(
            Classification(
                intent=prediction.intent,
                confidence=prediction.confidence,
                is_in_scope=prediction.is_in_scope,
                alternatives=tuple(prediction.alternatives),
                embedding=prediction.embedding,
            )
        )


class NoClassifier:
    """A flow without intents: every text is UNKNOWN, and retrieval decides alone."""

    version = "none"

    async def classify(self, text: str) -> Classification:  # noqa: ARG002  The port's signature.
        """UNKNOWN."""
        return UNKNOWN
