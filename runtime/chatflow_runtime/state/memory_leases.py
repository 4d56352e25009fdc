"""The in-memory twin of `redis_leases`, for tests of whatever stands on the port."""

from __future__ import annotations

from dataclasses import dataclass

from chatflow_runtime.ports import Attendance, Clock
from chatflow_runtime.state.rules import Rules


@dataclass(slots=True)
class _Lease:
    worker: str | None = None
    token: int = 0
    epoch_ms: int = 0
    """When its worker had attended that took it."""


class MemoryLeases:
    """LeaseStore without a server."""

    def __init__(self, rules: Rules, clock: Clock) -> None:
        self._lease_ms = rules.partition_lease_ms
        self._clock = clock
        self._seen_ms: dict[str, int] = {}
        self._leases: dict[int, _Lease] = {}

    @property
    def lease_s(self) -> float:
        """How long a worker, and with it all its leases, counts that is not heard of."""
        return self._lease_ms / 1000

    async def attend(self, worker: str) -> Attendance:
        """Tell that a worker lives, which keeps its leases."""
        now_ms, lease_ms = self._clock.now_ms(), self._lease_ms
        self._seen_ms = {name: at for name, at in self._seen_ms.items() if -lease_ms <= now_ms - at < lease_ms}
        is_new = worker not in self._seen_ms
        self._seen_ms[worker] = now_ms
        return Attendance(now_ms, tuple(self._seen_ms), is_new)

    async def leave(self, worker: str) -> None:
        """Tell that a worker goes."""
        self._seen_ms.pop(worker, None)

    async def lease(self, partition: int, worker: str, attended: Attendance, token: int = 0) -> int | None:
        """Take a partition, or look whether it is still held under a token: the token; None while another worker has
        it."""
        if self.holds(partition, worker, token):
            return token
        lease = self._leases.setdefault(partition, _Lease())
        if lease.worker not in (None, worker):
            is_newer = 0 < lease.epoch_ms - attended.at_ms <= self._lease_ms
            if is_newer or lease.worker in attended.workers:
                return None
        lease.worker, lease.token, lease.epoch_ms = worker, lease.token + 1, attended.at_ms
        return lease.token

    async def free(self, partition: int, worker: str, token: int | None = None) -> None:
        """Give a partition up, under a token or whatever it is; does nothing when it is lost already."""
        lease = self._leases.get(partition)
        if lease is not None and lease.worker == worker and token in (None, lease.token):
            lease.worker = None

    def holds(self, partition: int, worker: str, token: int) -> bool:
        """Whether a worker has a partition under a token, for the twin of the inbox."""
        lease = self._leases.get(partition, _Lease())
        return (lease.worker, lease.token) == (worker, token)
