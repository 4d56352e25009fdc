"""The worker role: between turns it ends silent conversations and carries records to their sink.

`bootstrap` runs one; several share the partitions by `ownership`. Every step is safe to repeat, so that one may have
begun with another worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

import structlog

from chatflow_runtime.errors import ChatFlowError, StateError, StateUnavailable
from chatflow_runtime.ownership import Ownership
from chatflow_runtime.ports import DueStore, RecordSink

_log = structlog.get_logger(__name__)
_LAST_PAUSE_S = 5.0

T = TypeVar("T")


class Worker:
    """Sweeps the partitions that it owns every `tick_s`. `wait` and `jitter` (0 to 1) are asyncio.sleep and chance,
    unless a test hands in its own."""

    def __init__(
        self,
        due: DueStore,
        sink: RecordSink,
        ownership: Ownership,
        *,
        tick_s: float = 1.0,
        batch: int = 100,
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._due = due
        self._sink = sink
        self._ownership = ownership
        self._tick_s = tick_s
        self._batch = batch
        self._wait = wait
        self._jitter = jitter

    async def run(self) -> None:
        """Work until cancelled. Failures are logged when they begin and end, and retried with growing pauses."""
        failures = outages = 0
        while True:
            try:
                await self.tick()
            except (ChatFlowError, OSError) as error:
                failures += 1
                # Only a server that is away gains from being left alone; whatever else fails, the rest stays punctual.
                outages = outages + 1 if isinstance(error, StateUnavailable) else 0
                if failures == 1:
                    _log.error("worker.failing", error=type(error).__name__, reason=str(error))
            else:
                if failures:
                    _log.info("worker.recovered", failed_ticks=failures)
                failures = outages = 0
            await self._wait(self._pause_s(outages))

    async def tick(self) -> None:
        """One pass over all partitions of this worker: notices and ends, then records. Raises the first failure after
        every partition had its turn."""
        failures: list[BaseException] = []
        owned = list(await self._ownership.refresh())
        await self._on_each(owned, self._due.sweep, failures)
        fetched = await self._on_each(owned, lambda partition: self._due.records(partition, self._batch), failures)
        batches = {partition: batch for partition, batch in fetched.items() if batch}
        if batches:
            await self._sink.write([record for batch in batches.values() for record in batch])
            await self._on_each(list(batches), lambda number: self._due.discard(number, batches[number]), failures)
            _log.info("worker.records_kept", records=sum(map(len, batches.values())))
        if failures:
            raise next((failure for failure in failures if isinstance(failure, StateUnavailable)), failures[0])

    async def leave(self) -> None:
        """Hand the partitions on to other workers, or to this one's successor; without a server they are free later."""
        with contextlib.suppress(StateError):
            await self._ownership.leave()

    async def _on_each(
        self, partitions: Sequence[int], step: Callable[[int], Coroutine[Any, Any, T]], failures: list[BaseException]
    ) -> dict[int, T]:
        """The results of a step by partition, all partitions at once so that their commands share writes."""
        results = await asyncio.gather(*map(step, partitions), return_exceptions=True)
        failures.extend(result for result in results if isinstance(result, BaseException))
        return {
            partition: result
            for partition, result in zip(partitions, results, strict=True)
            if not isinstance(result, BaseException)
        }

    def _pause_s(self, outages: int) -> float:
        if not outages:
            return self._tick_s
        return min(_LAST_PAUSE_S, self._tick_s * 2.0 ** min(outages, 10)) * (0.5 + self._jitter() / 2)
