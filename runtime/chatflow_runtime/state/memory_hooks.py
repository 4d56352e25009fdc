"""The in-memory twin of `redis_hooks`, and of lua/tell.lua: the other twins leave word here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from chatflow_api import names

from chatflow_runtime.domain.deliveries import Delivery
from chatflow_runtime.errors import LeaseLost
from chatflow_runtime.ports import Lease, Pending
from chatflow_runtime.state.memory_leases import MemoryLeases
from chatflow_runtime.state.rules import Rules
from chatflow_runtime.state.stream_id import StreamId


@dataclass(slots=True)
class _Partition:
    waiting: dict[str, tuple[str, Delivery]] = field(default_factory=dict)
    """User and delivery by entry."""
    dead: list[tuple[Delivery, str]] = field(default_factory=list)


class HookStreams:
    """What waits in each partition."""

    def __init__(self, rules: Rules) -> None:
        self._most = rules.hook_deliveries
        self._partitions: dict[int, _Partition] = {}

    def tell(self, uid: str, delivery: Delivery, entry: str) -> None:
        """Leave word; with too many the oldest goes to the dead letters."""
        partition = self.of(names.partition(uid))
        if len(partition.waiting) >= self._most:
            _, oldest = partition.waiting.pop(next(iter(partition.waiting)))
            partition.dead.append((oldest, "too many wait"))
        partition.waiting[entry] = uid, delivery

    def of(self, number: int) -> _Partition:
        """One partition."""
        return self._partitions.setdefault(number, _Partition())


class MemoryHooks:
    """HookReader without a server."""

    def __init__(self, streams: HookStreams, leases: MemoryLeases) -> None:
        self._streams = streams
        self._leases = leases

    async def waiting(self, lease: Lease, after: str | None, limit: int) -> Sequence[Pending]:
        """What waits, oldest first; from an entry on."""
        waiting = self._held(lease).waiting
        first = StreamId.of(after or "0")
        found = [Pending(entry, one.hook, uid) for entry, (uid, one) in waiting.items() if StreamId.of(entry) > first]
        return found[:limit]

    async def read(self, lease: Lease, pending: Pending) -> Delivery | None:
        """One of them; None when it has given way to newer ones."""
        found = self._streams.of(lease.partition).waiting.get(pending.entry)
        return None if found is None else found[1]

    async def sent(self, lease: Lease, pending: Pending, why: str | None = None) -> None:
        """One has been told; or is given up, and kept with the reason why."""
        partition = self._held(lease)
        found = partition.waiting.pop(pending.entry, None)
        if found is not None and why is not None:
            partition.dead.append((found[1], why))

    def _held(self, lease: Lease) -> _Partition:
        if not self._leases.holds(lease.partition, lease.worker, lease.token):
            raise LeaseLost(f"partition {lease.partition} is no longer {lease.worker}'s")
        return self._streams.of(lease.partition)
