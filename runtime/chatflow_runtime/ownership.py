"""Which partitions a worker has just now: a lease on each, renewed while it lives, handed on as workers come and go.

`worker` asks at every tick. Two workers may disagree for a moment about who lives; the leases decide.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from chatflow_api.names import PARTITIONS

from chatflow_runtime.domain.shares import share_of
from chatflow_runtime.ports import LeaseStore

RENEWALS = 3
"""Attempts to renew a lease before it ends."""


class Ownership:
    """The leases of one worker. `worker` is a name that no other process has, `monotonic_s` the time in seconds."""

    def __init__(
        self,
        store: LeaseStore,
        worker: str,
        monotonic_s: Callable[[], float],
        partitions: Sequence[int] = range(PARTITIONS),
    ) -> None:
        self._store = store
        self.worker = worker
        self._monotonic_s = monotonic_s
        self._partitions = partitions
        self._workers = frozenset[str]()
        self._share = frozenset[int]()
        self._leases: dict[int, tuple[int, float]] = {}
        """Token and time of the last renewal, by partition."""

    @property
    def tokens(self) -> Mapping[int, int]:
        """The token of each partition that this worker has, unless its lease has run out meanwhile."""
        oldest_s = self._monotonic_s() - self._store.lease_s
        return {number: token for number, (token, since_s) in self._leases.items() if since_s > oldest_s}

    async def refresh(self) -> Mapping[int, int]:
        """Renew, take and hand on what is due; the tokens. StateError when the server could not be asked: what is held
        is then held until it runs out."""
        began_s = self._monotonic_s()
        workers = frozenset(await self._store.attend(self.worker))
        if workers != self._workers:
            self._workers, self._share = workers, share_of(self.worker, workers, self._partitions)
        leaving = [number for number in self._leases if number not in self._share]
        renew_s = began_s - self._store.lease_s / RENEWALS
        wanted = [number for number in self._share if number not in self._leases or self._leases[number][1] <= renew_s]
        await asyncio.gather(*(self._free(number) for number in leaving))
        for number, token in zip(wanted, await asyncio.gather(*map(self._lease, wanted)), strict=True):
            if token is None:
                self._leases.pop(number, None)
            else:
                self._leases[number] = token, began_s
        return self.tokens

    async def leave(self) -> None:
        """Hand everything on at once. StateError leaves the rest to run out."""
        await self._store.leave(self.worker)
        await asyncio.gather(*(self._free(number) for number in list(self._leases)))

    async def _lease(self, number: int) -> int | None:
        return await self._store.lease(number, self.worker)

    async def _free(self, number: int) -> None:
        token, _ = self._leases.pop(number)
        await self._store.free(number, self.worker, token)
