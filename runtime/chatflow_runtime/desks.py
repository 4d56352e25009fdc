"""The partitions that a worker has, each with what it is doing there, and which of them have news. Shared by
`inbox_worker` and `hook_worker`, which differ in what they take and what they do with it."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog

from chatflow_runtime.errors import LeaseLost, StateError, StateUnavailable
from chatflow_runtime.ownership import Ownership
from chatflow_runtime.ports import Lease

_log = structlog.get_logger(__name__)

RESCAN_S = 5.0
"""Every partition is looked into again after this long, since wake-ups may be lost."""
FOLLOW_S = 1.0
"""The partitions that a worker has change; it looks at which they are this often."""


@dataclass
class Desk:
    """One partition, under one token. A worker that has lost it finishes nothing there."""

    lease: Lease
    is_lost: bool = False
    is_rescanned: bool = True
    """To be looked into as if nothing were known of it: at first, and now and then. Whoever looks sets it back."""


D = TypeVar("D", bound=Desk)


class Desks(Generic[D]):
    """The desks of one worker; `made` sets one up."""

    def __init__(self, name: str, ownership: Ownership, made: Callable[[Lease], D]) -> None:
        self._name = name
        self._ownership = ownership
        self._made = made
        self._desks: dict[int, D] = {}
        self._news: dict[int, None] = {}
        """The partitions that have some, in the order in which it came."""
        self._bell = asyncio.Event()

    def __iter__(self) -> Iterator[D]:
        return iter(self._desks.values())

    def wake(self, partition: int | None = None) -> None:
        """Look into a partition soon, or into all."""
        self._news |= dict.fromkeys(self._desks if partition is None else (partition,))
        self.ring()

    def ring(self) -> None:
        """Begin the next round now: there is room for what was left."""
        self._bell.set()

    async def watch(
        self,
        is_emptied: Callable[[D], Awaitable[bool]],
        *,
        has_room: Callable[[], bool] = lambda: True,
        rescans: bool = True,
    ) -> None:
        """Look into desks that have news, until cancelled, one after the other as long as there is room; again, where
        one is not emptied. Afterwards all are lost."""
        scanned_s = -math.inf
        try:
            while True:
                now_s = asyncio.get_running_loop().time()
                if rescans and now_s - scanned_s >= RESCAN_S:
                    scanned_s = now_s
                    for desk in self._desks.values():
                        desk.is_rescanned = True
                    self.wake()
                self._bell.clear()
                self._follow_ownership()
                if await self._look(is_emptied, has_room):
                    continue
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(FOLLOW_S):
                        await self._bell.wait()
        finally:
            for desk in self._desks.values():
                desk.is_lost = True

    def lose(self, desk: D) -> None:
        """Another worker has it by now."""
        desk.is_lost = True
        if self._desks.get(desk.lease.partition) is desk:
            del self._desks[desk.lease.partition]

    def _follow_ownership(self) -> None:
        owned = self._ownership.tokens
        for number, desk in list(self._desks.items()):
            if owned.get(number) != desk.lease.token:
                self.lose(desk)
        for number, token in owned.items():
            if number not in self._desks:
                self._desks[number] = self._made(Lease(number, self._ownership.worker, token))
                self._news[number] = None

    async def _look(self, is_emptied: Callable[[D], Awaitable[bool]], has_room: Callable[[], bool]) -> bool:
        """One round; whether there is more to be looked at right now."""
        is_more = False
        for number in list(self._news):
            if not has_room():
                # What was not looked at comes first in the next round.
                return False
            # Before it is looked into: what comes meanwhile is news again.
            del self._news[number]
            desk = self._desks.get(number)
            if desk is None:
                continue
            try:
                if not await is_emptied(desk):
                    self._news[number] = None
                    is_more = True
            except LeaseLost:
                self.lose(desk)
            except StateError as error:
                self._news[number] = None
                _log.warning(f"{self._name}.unreadable", partition=number, reason=str(error))
                if isinstance(error, StateUnavailable):
                    return False
        return is_more
