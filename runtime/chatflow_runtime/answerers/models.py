"""Answers from language models: the ladder's rungs L1, walked until one of them gives a first token.

A model of which no server runs may have its turns held (`demand`) before the next one is asked; one that fails or is
slow is passed over (`guard`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import msgspec
import structlog

from chatflow_runtime.answerers.answer import Answer
from chatflow_runtime.answerers.demand import Demand
from chatflow_runtime.answerers.guard import Attempt, Guards
from chatflow_runtime.answerers.lane import Lane, Place
from chatflow_runtime.domain.concurrency import Priority
from chatflow_runtime.domain.ladder import MODELS, OVERLOAD_RETRY_S, WAKING_RETRY_S
from chatflow_runtime.domain.moderation import Moderator
from chatflow_runtime.domain.prompt import ChatMessage
from chatflow_runtime.domain.reply import Origin, Usage
from chatflow_runtime.errors import (
    AnswerTooLong,
    FirstTokenLate,
    ModelAbsent,
    ModelError,
    ModelOverloaded,
    PromptRefused,
)
from chatflow_runtime.metrics import Metrics
from chatflow_runtime.ports import Delta, LanguageModel
from chatflow_runtime.sink import DeltaSink

log = structlog.get_logger()

HARMLESS = (ModelAbsent, ModelOverloaded, PromptRefused, AnswerTooLong)
"""Failures of which a breaker need not know: that no server runs is told at once and has to be told, so that one wakes;
that there is too much to do is the lane's matter; the others come of the prompt and the limits."""


class Unanswered(msgspec.Struct, frozen=True):
    """No model began to answer. `retry_after_s`: when one that was not running may be awake."""

    retry_after_s: int | None = None
    is_overloaded: bool = False
    """Whether one had no place for the turn."""


@dataclass(frozen=True, slots=True)
class ModelLadder:
    """Asks llm, then backup. Never another model once a first piece has gone out."""

    models: Mapping[Origin, LanguageModel]
    moderator: Moderator
    metrics: Metrics
    broken_off: str
    """Notice that ends an answer whose stream broke off."""
    guards: Guards
    lanes: Mapping[Origin, Lane]
    demands: Mapping[Origin, Demand] = field(default_factory=lambda: {origin: Demand(origin) for origin in MODELS})

    async def answer(
        self,
        prompts: Mapping[Origin, Sequence[ChatMessage]],
        sink: DeltaSink | None,
        priority: Priority = Priority.UNDER_WAY,
    ) -> Answer | Unanswered:
        """The first model's answer that begins in time. Pieces go to `sink` as they come."""
        is_waking = is_overloaded = False
        for origin in MODELS:
            model = self.models.get(origin)
            if model is None:
                continue
            attempt = self.guards.of(origin, self.guards.slow_s).admit()
            if attempt is None:
                continue
            stream = _Stream(model, origin, self.moderator, self.metrics, sink, attempt)
            try:
                with attempt:
                    run = partial(stream.run, prompts[origin], self.lanes[origin], priority)
                    return await self.demands[origin].ask(run)
            except ModelError as error:
                is_waking = is_waking or isinstance(error, ModelAbsent)
                is_overloaded = is_overloaded or isinstance(error, ModelOverloaded)
                self.metrics.model_error(origin, error.code)
                if not isinstance(error, ModelOverloaded):
                    log.warning("model_failed", origin=origin, model=model.name, code=error.code, reason=str(error))
                if stream.has_begun:
                    return await stream.broken(self.broken_off)
        retry_after_s = WAKING_RETRY_S if is_waking else OVERLOAD_RETRY_S if is_overloaded else None
        return Unanswered(retry_after_s, is_overloaded)


class _Stream:
    """One answer under way."""

    def __init__(
        self,
        model: LanguageModel,
        origin: Origin,
        moderator: Moderator,
        metrics: Metrics,
        sink: DeltaSink | None,
        attempt: Attempt,
    ) -> None:
        self._model = model
        self._origin = origin
        self._moderation = moderator.stream()
        self._metrics = metrics
        self._sink = sink
        self._attempt = attempt
        self._parts: list[str] = []
        self._usage: Usage | None = None
        self.has_begun = False

    async def run(self, prompt: Sequence[ChatMessage], lane: Lane, priority: Priority) -> Answer:
        """The whole answer; raises ModelError, and closes the upstream request however it ends."""
        async with lane.place(priority) as place:
            return await self._run(prompt, place)

    async def _run(self, prompt: Sequence[ChatMessage], place: Place) -> Answer:
        began_s = time.monotonic()
        pieces = self._model.stream(prompt)
        try:
            async for piece in pieces:
                if isinstance(piece, Delta):
                    if not self.has_begun:
                        self.has_begun = True
                        took_s = time.monotonic() - began_s
                        self._attempt.began(took_s)
                        place.began(took_s)
                        self._metrics.first_token(self._origin, took_s)
                    await self._pass_on(self._moderation.feed(piece.text))
                    if self._moderation.is_refused:
                        break
                else:
                    self._usage = piece
                    self._metrics.tokens(self._origin, piece)
        except ModelError as error:
            if not isinstance(error, HARMLESS):
                self._attempt.failed()
            if isinstance(error, FirstTokenLate):
                place.late()
            elif isinstance(error, ModelOverloaded):
                place.refused()
            raise
        finally:
            await pieces.aclose()
        await self._pass_on(self._moderation.finish())
        return self._answer(is_partial=False)

    async def broken(self, notice: str) -> Answer:
        """The answer as far as it came, ended by a notice."""
        await self._pass_on(self._moderation.finish())
        await self._pass_on(("\n\n" if self._parts else "") + notice)
        return self._answer(is_partial=True)

    async def _pass_on(self, text: str) -> None:
        if text:
            self._parts.append(text)
            if self._sink is not None:
                await self._sink.delta(text)

    def _answer(self, *, is_partial: bool) -> Answer:
        return Answer(
            text="".join(self._parts),
            origin=self._origin,
            usage=self._usage,
            model=self._model.name,
            is_partial=is_partial,
        )
