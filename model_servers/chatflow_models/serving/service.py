"""The model behind the server: warmed, batched, with a bounded queue. `fast_path` and `model` ask it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NoReturn

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from chatflow_models.intent import IntentModel, Prediction
from chatflow_models.intent.batching import Batcher, Limits, QueueFull, in_executor
from chatflow_models.serving.batch_cost import BatchCost

WARM_ROUNDS = 3
_WARM_TEXTS = (
    "where is my order",
    "我的订单到哪里了",
    "I would like to return the shoes that I bought last week, please",
)
_LATENCY_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True, slots=True)
class Load:
    """How much at a time, and how long anyone waits."""

    items: int = 32
    """Texts of a batch."""
    batch_s: float = 0.02
    """How long the model works on a batch, about: who comes meanwhile waits for its end."""
    characters: int = 4000
    """Of a batch, in all its texts but the last."""
    window_s: float = 0.001
    """How long the first text of a batch waits for company."""
    waiting: int = 2048
    """Texts that may wait."""
    wait_s: float = 0.5
    """The longest that a request waits for the model to begin with it."""


class Metrics:
    """What Prometheus is told, beside the SDK's own metrics."""

    def __init__(self, registry: CollectorRegistry, model: str) -> None:
        labels = {"model": model}
        self._latency = Histogram(
            "chatflow_intent_request_seconds", "From the request's texts to their predictions.", ["model", "protocol"],
            buckets=_LATENCY_S, registry=registry,
        )  # fmt: skip
        self._batch = Histogram(
            "chatflow_intent_batch_texts", "Texts in a batch.", ["model"], buckets=_BATCHES, registry=registry
        ).labels(**labels)
        self._work = Histogram(
            "chatflow_intent_batch_seconds", "The model's work on a batch.", ["model"],
            buckets=_LATENCY_S, registry=registry,
        ).labels(**labels)  # fmt: skip
        self._refused = Counter(
            "chatflow_intent_refused_texts", "Texts refused because too many waited.", ["model"], registry=registry
        ).labels(**labels)
        self.waiting = Gauge(
            "chatflow_intent_waiting_texts", "Texts that wait for a batch.", ["model"], registry=registry
        ).labels(**labels)
        self._model = model

    def answered(self, protocol: str, seconds: float) -> None:
        """A request was answered."""
        self._latency.labels(self._model, protocol).observe(seconds)

    def worked(self, texts: int, seconds: float) -> None:
        """A batch was worked on."""
        self._batch.observe(texts)
        self._work.observe(seconds)

    def refused(self, texts: int) -> None:
        """A request was refused."""
        self._refused.inc(texts)


class Overloaded(Exception):
    """A request that would wait too long. `retry_after_s` is when to send it again, whole seconds."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class IntentService:
    """Predictions for requests of any size, batched across them. Belongs to one event loop."""

    def __init__(
        self, name: str, model: IntentModel, load: Load, registry: CollectorRegistry, threads: int = 1
    ) -> None:
        """`threads`: 0 has the model work on the event loop, which saves a hand-over on a single core."""
        self.name = name
        self._model, self._load = model, load
        self._metrics = Metrics(registry, name)
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="intent") if threads else None
        limits = Limits(load.items, load.characters, load.window_s, load.waiting, load.wait_s)
        work = self._work if self._executor is None else in_executor(self._executor, self._work)
        self._batcher: Batcher[str, Prediction] = Batcher(
            work, limits, size_of=len, on_batch=self._worked, most=self._most
        )
        self._cost = BatchCost({1: 0.0})
        self._metrics.waiting.set_function(lambda: self._batcher.waiting)

    @property
    def version(self) -> str:
        """The version of the model that answers. Between a `predict` and what follows it, it is that of the answer."""
        return self._model.version

    def warm(self) -> None:
        """Work on batches of every size, so that the first request finds everything loaded and its speed is known."""
        self._cost = self._warmed(self._model)

    async def swap(self, model: IntentModel) -> None:
        """Answer with another model of the same flow from the next batch on, once that one is warm."""
        await asyncio.to_thread(self._warmed, model)
        self._model = model  # On the event loop, or `version` could change between a `predict` and what follows it.

    def _work(self, texts: Sequence[str]) -> list[Prediction]:
        return self._model.predict(texts)

    def _warmed(self, model: IntentModel) -> BatchCost:
        best_s = dict[int, float]()
        for _ in range(WARM_ROUNDS):
            for texts in self._warm_batches():
                began_s = time.perf_counter()
                model.predict(texts)
                took_s = time.perf_counter() - began_s
                best_s[len(texts)] = min(best_s.get(len(texts), took_s), took_s)
        return BatchCost(best_s)

    def _warm_batches(self) -> Iterator[list[str]]:
        size = 1
        while size <= self._load.items:
            yield [_WARM_TEXTS[number % len(_WARM_TEXTS)] for number in range(size)]
            size *= 2

    async def predict(self, texts: Sequence[str], protocol: str) -> list[Prediction]:
        """One prediction a text, in order. Overloaded when the model would not begin with them in time."""
        began_s = time.perf_counter()
        expected_s = self._expected_wait_s()
        if expected_s > self._load.wait_s:
            self._refuse(len(texts), f"{self._batcher.waiting} texts wait, for some {expected_s:.1f} s")
        try:
            while True:
                version = self.version
                predictions = await self._batcher.submit(texts)
                if version == self.version:
                    break
                # Some were made by the model before: one answer is one model's, and says which.
        except QueueFull as error:
            self._refuse(len(texts), str(error))
        self._metrics.answered(protocol, time.perf_counter() - began_s)
        return predictions

    def _expected_wait_s(self) -> float:
        """What the model works on before it begins with a call that comes now: of each call before at most a batch."""
        most, batcher = self._most(), self._batcher
        ahead = min(batcher.waiting, batcher.calls * most) + (most if batcher.is_working else 0)
        return self._cost.of(ahead, most)

    def _most(self) -> int:
        return min(self._load.items, self._cost.fitting(self._load.batch_s))

    def _refuse(self, texts: int, why: str) -> NoReturn:
        self._metrics.refused(texts)
        raise Overloaded(f"too much at once: {why}", max(1, math.ceil(self._expected_wait_s())))

    def _worked(self, texts: int, seconds: float) -> None:
        self._cost.note(texts, seconds)
        self._metrics.worked(texts, seconds)

    async def idle(self) -> None:
        """Return once everything accepted is answered."""
        await self._batcher.idle()

    def close(self) -> None:
        """Let go of the worker thread."""
        if self._executor is not None:
            self._executor.shutdown(wait=False)
