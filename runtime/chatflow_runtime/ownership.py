"""Which partitions a worker has just now: a lease on each, handed on as workers come and go.

`worker` asks at every tick. Two workers may disagree for a moment about who lives; the leases decide. To keep them
costs one write a tick, however many they are: a lease names its worker, and counts for as long as that one attends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from chatflow_api.names import PARTITIONS

from chatflow_runtime.domain.shares import share_of
from chatflow_runtime.ports import Attendance, LeaseStore

LOOKS = 2
"""So often within a lease's time a worker looks whether what it has is still its own: a state server that failed over
may have lost a lease, and whoever has it then would not be heard of otherwise."""


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
        self._tokens: dict[int, int] = {}
        self._attended_s = -store.lease_s
        """When the worker last began to tell that it lives, and was heard."""
        self._looked_s = 0.0

    @property
    def tokens(self) -> Mapping[int, int]:
        """The token of each partition that this worker has; none once it was not heard of for too long."""
        return dict(self._tokens) if self._monotonic_s() - self._attended_s < self._store.lease_s else {}

    async def refresh(self) -> Mapping[int, int]:
        """Keep, take and hand on what is due; the tokens. StateError when the server could not be asked: what is held
        is then held until it runs out."""
        began_s = self._monotonic_s()
        attended = await self._store.attend(self.worker)
        # An earlier attendance that said so may have been lost on its way.
        if attended.is_new or began_s - self._attended_s >= self._store.lease_s:
            self._tokens.clear()
        self._attended_s = began_s
        workers = frozenset(attended.workers)
        if workers != self._workers:
            self._workers, self._share = workers, share_of(self.worker, workers, self._partitions)
        await asyncio.gather(*(self._free(number) for number in self._tokens.keys() - self._share))
        is_look = began_s - self._looked_s >= self._store.lease_s / LOOKS
        wanted = self._share if is_look else self._share - self._tokens.keys()
        await asyncio.gather(*(self._lease(number, attended) for number in wanted))
        if is_look:
            # A failover may have brought a lease back that was given up, and others leave it to whoever lives.
            strays = set(self._partitions) - self._share
            await asyncio.gather(*(self._store.free(number, self.worker) for number in strays))
            self._looked_s = began_s
        return self.tokens

    async def leave(self) -> None:
        """Hand everything on at once. StateError leaves the rest to run out."""
        await self._store.leave(self.worker)
        await asyncio.gather(*(self._free(number) for number in list(self._tokens)))

    async def _lease(self, number: int, attended: Attendance) -> None:
        token = await self._store.lease(number, self.worker, attended, self._tokens.get(number, 0))
        if token is None:
            self._tokens.pop(number, None)
        else:
            self._tokens[number] = token

    async def _free(self, number: int) -> None:
        await self._store.free(number, self.worker, self._tokens[number])
        self._tokens.pop(number, None)
