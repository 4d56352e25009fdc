"""Which flow is next: each at most once at a time, however often it is asked for, and no earlier than asked."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from typing import Generic, TypeVar

K = TypeVar("K")


class WorkQueue(Generic[K]):
    """A set of keys with the time at which each is due."""

    def __init__(self) -> None:
        self._due_s: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._numbers = itertools.count()
        self._under_way: set[K] = set()
        self._again_s: dict[K, float] = {}
        self._news = asyncio.Event()

    def __len__(self) -> int:
        return len(self._due_s)

    def add(self, key: K, delay_s: float = 0.0) -> None:
        """Ask for a key, after a while. An earlier time that was asked for before stands."""
        due_s = asyncio.get_running_loop().time() + delay_s
        waiting = self._again_s if key in self._under_way else self._due_s
        if due_s >= waiting.get(key, float("inf")):
            return
        waiting[key] = due_s
        if waiting is self._due_s:
            heapq.heappush(self._heap, (due_s, next(self._numbers), key))
            self._news.set()

    def is_overdue(self, seconds: float) -> bool:
        """Whether a key has been due for so long and nobody took it."""
        return any(due_s < asyncio.get_running_loop().time() - seconds for due_s in self._due_s.values())

    async def take(self) -> K:
        """The next key that is due; `done` gives it free again."""
        while True:
            now_s = asyncio.get_running_loop().time()
            while self._heap and self._due_s.get(self._heap[0][2]) != self._heap[0][0]:
                heapq.heappop(self._heap)
            if self._heap and self._heap[0][0] <= now_s:
                key = heapq.heappop(self._heap)[2]
                del self._due_s[key]
                self._under_way.add(key)
                return key
            self._news.clear()
            wait_s = self._heap[0][0] - now_s if self._heap else None
            try:
                async with asyncio.timeout(wait_s):
                    await self._news.wait()
            except TimeoutError:
                continue

    def done(self, key: K) -> None:
        """The key's work has ended; what was asked for meanwhile is next."""
        self._under_way.discard(key)
        due_s = self._again_s.pop(key, None)
        if due_s is not None:
            self.add(key, due_s - asyncio.get_running_loop().time())
