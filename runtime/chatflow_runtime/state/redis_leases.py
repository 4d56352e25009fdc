"""Which worker has which partition, on Redis or Valkey: ports.LeaseStore."""

from __future__ import annotations

from chatflow_api import names

from chatflow_runtime.ports import Attendance, Clock
from chatflow_runtime.state.link import Link
from chatflow_runtime.state.rules import Rules
from chatflow_runtime.state.scripts import Status, render


class RedisLeases:
    """LeaseStore over a worker's connection. With a `clock` its time takes the place of the server's (tests)."""

    def __init__(self, link: Link, flow: str, rules: Rules, clock: Clock | None = None) -> None:
        self._link = link
        self._flow = flow
        self._scripts = render(rules)
        self._lease_s = rules.partition_lease_ms / 1000
        self._clock = clock

    @property
    def lease_s(self) -> float:
        """How long a worker, and with it all its leases, counts that is not heard of."""
        return self._lease_s

    async def attend(self, worker: str) -> Attendance:
        """Tell that a worker lives, which keeps its leases."""
        key = names.workers_key(self._flow)
        at_ms, is_new, *found = await self._link.run(self._scripts.attend, 1, key, self._now(), worker)
        return Attendance(at_ms, tuple(name.decode() for name in found), bool(is_new))

    async def leave(self, worker: str) -> None:
        """Tell that a worker goes."""
        await self._link.call("ZREM", names.workers_key(self._flow), worker)

    async def lease(self, partition: int, worker: str, attended: Attendance, token: int = 0) -> int | None:
        """Take a partition, or look whether it is still held under a token: the token; None while another worker has
        it."""
        key = names.lease_key(self._flow, partition)
        status, *held = await self._link.run(
            self._scripts.lease, 1, key, worker, token, attended.at_ms, *attended.workers
        )
        return held[0] if status == Status.DONE else None

    async def free(self, partition: int, worker: str, token: int | None = None) -> None:
        """Give a partition up, under a token or whatever it is; does nothing when it is lost already."""
        key = names.lease_key(self._flow, partition)
        await self._link.run(self._scripts.free, 1, key, worker, "" if token is None else token)

    def _now(self) -> str | int:
        return "" if self._clock is None else self._clock.now_ms()
