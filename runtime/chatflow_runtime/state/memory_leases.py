"""The in-memory twin of `redis_leases`, for tests of whatever stands on the port."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chatflow_runtime.ports import Clock
from chatflow_runtime.state.rules import Rules


@dataclass(slots=True)
class _Lease:
    worker: str | None = None
    token: int = 0
    until_ms: int = 0


class MemoryLeases:
    """LeaseStore without a server."""

    def __init__(self, rules: Rules, clock: Clock) -> None:
        self._lease_ms = rules.partition_lease_ms
        self._clock = clock
        self._seen_ms: dict[str, int] = {}
        self._leases: dict[int, _Lease] = {}

    @property
    def lease_s(self) -> float:
        """How long a lease lasts that is not renewed, and how long a worker counts that is not heard of."""
        return self._lease_ms / 1000

    async def attend(self, worker: str) -> Sequence[str]:
        """Tell that a worker lives; everyone who has told of late, itself included."""
        now_ms = self._clock.now_ms()
        self._seen_ms[worker] = now_ms
        return [name for name, seen_ms in self._seen_ms.items() if seen_ms > now_ms - self._lease_ms]

    async def leave(self, worker: str) -> None:
        """Tell that a worker goes."""
        self._seen_ms.pop(worker, None)

    async def lease(self, partition: int, worker: str) -> int | None:
        """Take a partition, or renew the lease on it: the token; None while another worker has it."""
        lease, now_ms = self._leases.setdefault(partition, _Lease()), self._clock.now_ms()
        if lease.worker != worker:
            if lease.worker is not None and lease.until_ms > now_ms:
                return None
            lease.token += 1
        lease.worker, lease.until_ms = worker, now_ms + self._lease_ms
        return lease.token

    async def free(self, partition: int, worker: str, token: int) -> None:
        """Give a partition up; does nothing when it is lost already."""
        if self.holds(partition, worker, token):
            self._leases[partition].worker = None

    def holds(self, partition: int, worker: str, token: int) -> bool:
        """Whether a worker has a partition under a token, for the twin of the inbox."""
        lease = self._leases.get(partition, _Lease())
        return (lease.worker, lease.token) == (worker, token)
