"""Places at a language model: as many as its limit allows, given to those under way before those who are new. `models`
takes one for each answer. One lane a model in each gateway process, each learning for itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from chatflow_runtime.domain.concurrency import Limit, LimitRules, Priority, QueueRules
from chatflow_runtime.domain.reply import Origin
from chatflow_runtime.errors import ModelOverloaded
from chatflow_runtime.metrics import Metrics


@dataclass(slots=True, eq=False)
class _Waiter:
    priority: Priority
    place: asyncio.Future[None]


@dataclass(slots=True)
class Place:
    """One answer under way."""

    lane: Lane

    def began(self, seconds: float) -> None:
        """Its first token came so long after it was asked for."""
        self.lane.limit.began(seconds, self.lane.under_way, self.lane.clock_s())

    def late(self) -> None:
        """It did not come in time."""
        self.lane.limit.late(self.lane.clock_s())

    def refused(self) -> None:
        """The model's server said that it has too much to do."""
        self.lane.limit.refused(self.lane.clock_s())


@dataclass
class Lane:
    """The places at one model."""

    origin: Origin
    metrics: Metrics
    rules: LimitRules = field(default_factory=LimitRules)
    queue: QueueRules = field(default_factory=QueueRules)
    clock_s: Callable[[], float] = time.monotonic
    under_way: int = 0
    _waiters: list[_Waiter] = field(default_factory=list)
    _filled_s: float = 0.0
    """When the queue was empty last."""

    def __post_init__(self) -> None:
        self.limit = Limit(self.rules)
        self.metrics.watch_concurrency(self.origin, lambda: self.limit.value, lambda: self.under_way)

    @asynccontextmanager
    async def place(self, priority: Priority) -> AsyncIterator[Place]:
        """A place while the context lasts. ModelOverloaded when none becomes free in time; whoever is new does not
        wait, unless the rules say so: those under way come first."""
        if self.under_way >= self.limit.value or self._waiters:
            await self._waited(priority)
        else:
            self.under_way += 1
        try:
            yield Place(self)
        finally:
            self.under_way -= 1
            self._call()

    async def _waited(self, priority: Priority) -> None:
        if priority is Priority.NEW and not self.queue.new_wait:
            raise self._refusal()
        now_s = self.clock_s()
        if not self._waiters:
            self._filled_s = now_s
        waiter = _Waiter(priority, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(self.queue.patience(now_s - self._filled_s)):
                await waiter.place
        except BaseException as error:
            if waiter.place.cancelled():
                self._waiters.remove(waiter)
            else:
                # The place came in the same moment: it is the next one's.
                self.under_way -= 1
                self._call()
            if isinstance(error, TimeoutError):
                raise self._refusal() from None
            raise

    def _call(self) -> None:
        """Give free places to those who wait: the higher priority first; in a standing queue the latest, who has most
        of its time left, else the first."""
        while self.under_way < self.limit.value:
            # One who has just lost patience is still among them.
            waiting = [waiter for waiter in self._waiters if not waiter.place.done()]
            if not waiting:
                return
            is_standing = self.clock_s() - self._filled_s > self.queue.standing_s
            best = max(waiter.priority for waiter in waiting)
            candidates = [waiter for waiter in waiting if waiter.priority is best]
            chosen = candidates[-1 if is_standing else 0]
            self._waiters.remove(chosen)
            self.under_way += 1
            chosen.place.set_result(None)

    def _refusal(self) -> ModelOverloaded:
        self.metrics.overloaded(self.origin)
        return ModelOverloaded(f"{self.under_way} answers of {self.origin} are under way, and its limit is reached")
