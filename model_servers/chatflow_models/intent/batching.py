"""Micro-batches: what arrives within a moment is worked on together. Used by the gateway's classifiers, in process and
remote, and by the model server.

A batch costs less than its items one by one, because weights are read once; waiting for company costs latency. So one
waits only for as many as there were last time, and never longer than the window: a lone caller is served at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Generic, TypeVar

from .errors import IntentError

Item = TypeVar("Item")
Result = TypeVar("Result")


class BatchFailed(IntentError):
    """The work on a batch raised; its cause says what. Everyone in the batch gets it."""

    code = "batch_failed"


class QueueFull(IntentError):
    """More items wait than can be worked on in time."""

    code = "queue_full"
    is_retryable = True


@dataclass(frozen=True, slots=True)
class Limits:
    """How large batches become, and how long they wait."""

    items: int = 32
    """Of a batch, at most."""
    size: int = 1000
    """Of all items of a batch but its last, in whatever `size_of` measures."""
    window_s: float = 0.0
    """How long the first of a batch waits for others, at most. 0: until the end of the loop's tick."""
    waiting: int | None = None
    """Items that may wait before others are refused."""
    wait_s: float | None = None
    """A call that has waited so long for its first batch is refused: most likely its caller has given up."""
    batches: int = 1
    """Worked on at the same time, at most."""


@dataclass(slots=True)
class _Call(Generic[Item, Result]):
    """Items of one caller."""

    items: Sequence[Item]
    came_s: float
    future: asyncio.Future[list[Result]]
    results: dict[int, Result]
    """By the item's place: a later batch may be done before an earlier one."""
    taken: int = 0
    """How many of them are in a batch already."""


class Batcher(Generic[Item, Result]):
    """Begins batches in the order in which calls came; a call that fills a batch makes way for the others before its
    next one. Belongs to the event loop that calls it."""

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Sequence[Result] | Awaitable[Sequence[Result]]],
        limits: Limits,
        *,
        size_of: Callable[[Item], int],
        on_batch: Callable[[int, float], None] | None = None,
        most: Callable[[], int] | None = None,
    ) -> None:
        """`work` gives a result for each item, in order: at once, or as something to await. `on_batch` is told the
        items of each batch and the seconds that the work took; `most` says how many items, at least 1, the next one
        may have where that is fewer than `limits` allow."""
        self._work = work
        self._limits = limits
        self._size_of = size_of
        self._on_batch = on_batch
        self._most = most
        self._calls: deque[_Call[Item, Result]] = deque()
        self._waiting = 0
        self._expected = 1
        self._timer: asyncio.Handle | None = None
        self._is_due = False
        """Whether the timer is set for the end of the loop's tick, and not for that of the window."""
        self._working = 0
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    @property
    def waiting(self) -> int:
        """Items that are in no batch yet."""
        return self._waiting

    @property
    def calls(self) -> int:
        """Calls with such items."""
        return len(self._calls)

    @property
    def is_working(self) -> bool:
        """Whether a batch is under way."""
        return self._working > 0

    async def submit(self, items: Sequence[Item]) -> list[Result]:
        """The results for a caller's items, in order. QueueFull at once when too many wait already, BatchFailed when
        the work on one of its batches raised."""
        if not items:
            return []
        if self._limits.waiting is not None and self._waiting + len(items) > self._limits.waiting:
            raise QueueFull(f"{self._waiting} texts wait already; send these {len(items)} again in a moment")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Result]] = loop.create_future()
        self._calls.append(_Call(items, loop.time(), future, {}))
        self._waiting += len(items)
        self._is_idle.clear()
        self._schedule()
        return await future

    async def idle(self) -> None:
        """Return once nothing waits and nothing is worked on."""
        await self._is_idle.wait()

    def _schedule(self) -> None:
        """Have the next batch begin: at the end of the tick, when it is complete, or once its first call has waited for
        the window."""
        if self._working == self._limits.batches or self._is_due or not self._calls:
            return
        loop = asyncio.get_running_loop()
        is_complete = self._waiting >= min(self._expected, self._items())
        wait_s = 0.0 if is_complete else self._calls[0].came_s + self._limits.window_s - loop.time()
        if wait_s <= 0:
            if self._timer is not None:
                self._timer.cancel()
            self._is_due = True
            self._timer = loop.call_soon(self._begin)
        elif self._timer is None:
            self._timer = loop.call_later(wait_s, self._begin)

    def _items(self) -> int:
        """The most items that the next batch may have."""
        return self._limits.items if self._most is None else min(self._limits.items, self._most())

    def _begin(self) -> None:
        self._timer, self._is_due = None, False
        self._working += 1
        batch = self._taken()
        if not batch:
            self._end()
            return
        loop = asyncio.get_running_loop()
        self._expected = len(batch)
        began_s = loop.time()
        try:
            outcome = self._work([call.items[index] for call, index in batch])
        except Exception as error:  # noqa: BLE001  Each caller gets it; none may wait for ever.
            self._finish(batch, error, loop.time() - began_s)
            return
        if isinstance(outcome, Awaitable):
            working = asyncio.ensure_future(outcome)
            working.add_done_callback(lambda done: self._finish(batch, _outcome_of(done), loop.time() - began_s))
            self._schedule()
        else:
            self._finish(batch, outcome, loop.time() - began_s)

    def _taken(self) -> list[tuple[_Call[Item, Result], int]]:
        """The next batch, as calls and positions in them. A caller that has left, or has waited too long, is passed
        over."""
        batch: list[tuple[_Call[Item, Result], int]] = []
        size, items = 0, self._items()
        while self._calls and len(batch) < items and size < self._limits.size:
            call = self._calls[0]
            if call.future.done() or self._is_late(call):
                self._waiting -= len(call.items) - call.taken
                self._calls.popleft()
                continue
            size += self._size_of(call.items[call.taken])
            batch.append((call, call.taken))
            call.taken += 1
            self._waiting -= 1
            if call.taken == len(call.items):
                self._calls.popleft()
        if batch and self._calls and batch[-1][0] is self._calls[0]:
            self._calls.rotate(-1)
        return batch

    def _is_late(self, call: _Call[Item, Result]) -> bool:
        """Whether a call waits for too long already; it is told."""
        if self._limits.wait_s is None or call.taken:
            return False
        waited_s = asyncio.get_running_loop().time() - call.came_s
        if waited_s <= self._limits.wait_s:
            return False
        call.future.set_exception(QueueFull(f"the texts have waited {waited_s:.1f} s; send them again in a moment"))
        return True

    def _finish(
        self, batch: list[tuple[_Call[Item, Result], int]], outcome: Sequence[Result] | BaseException, seconds: float
    ) -> None:
        if self._on_batch is not None:
            self._on_batch(len(batch), seconds)
        if not isinstance(outcome, BaseException) and len(outcome) != len(batch):
            outcome = ValueError(f"{len(outcome)} results for {len(batch)} items")
        if isinstance(outcome, BaseException):
            for call, _ in batch:
                if not call.future.done():
                    failure = BatchFailed(str(outcome) or type(outcome).__name__)
                    failure.__cause__ = outcome
                    call.future.set_exception(failure)
        else:
            for (call, index), result in zip(batch, outcome, strict=True):
                call.results[index] = result
                if len(call.results) == len(call.items) and not call.future.done():
                    call.future.set_result([call.results[place] for place in range(len(call.items))])
        self._end()

    def _end(self) -> None:
        self._working -= 1
        if self._calls:
            self._schedule()
        elif not self._working:
            self._is_idle.set()


def in_executor(
    executor: Executor, work: Callable[[Sequence[Item]], Sequence[Result]]
) -> Callable[[Sequence[Item]], Awaitable[Sequence[Result]]]:
    """The same work beside the loop."""
    return lambda items: asyncio.get_running_loop().run_in_executor(executor, work, items)


def _outcome_of(done: asyncio.Future[Sequence[Result]]) -> Sequence[Result] | BaseException:
    return asyncio.CancelledError() if done.cancelled() else done.exception() or done.result()
