"""What webhooks are to be told, on Redis or Valkey: ports.HookReader for workers. Scripts of other stores leave it
there, in one step with what it tells of (lua/tell.lua)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from chatflow_api import names

from chatflow_runtime.domain.deliveries import Delivery, Hook
from chatflow_runtime.errors import LeaseLost
from chatflow_runtime.ports import Lease, Pending
from chatflow_runtime.state.codec import DELIVERIES
from chatflow_runtime.state.link import Link
from chatflow_runtime.state.rules import Rules
from chatflow_runtime.state.scripts import Script, Status, render
from chatflow_runtime.state.wire import Argument

_KNOWN_BY_SCRIPTS = {b"o": "outbox_id", b"h": "handoff_id"}
"""What lua/tell.lua notes beside a delivery, because only the script that leaves it knows."""


def told_with(flow: str, uid: str, delivery: Delivery | None) -> tuple[tuple[str, ...], tuple[Argument, ...]]:
    """Keys and arguments with which a script leaves a delivery; none of them where there is none to leave."""
    if delivery is None:
        return (), ()
    number = names.partition(uid)
    keys = (names.hooks_key(flow, number), names.dead_key(flow, number))
    channel = names.work_channel(flow, number)
    return keys, (delivery.hook, DELIVERIES.encode(delivery), delivery.handoff_id or "", channel, number)


class RedisHooks:
    """HookReader over a worker's connection."""

    def __init__(self, link: Link, flow: str, rules: Rules) -> None:
        self._link = link
        self._flow = flow
        self._scripts = render(rules)

    async def waiting(self, lease: Lease, after: str | None, limit: int) -> Sequence[Pending]:
        """What waits, oldest first; from an entry on."""
        rows = await self._run(self._scripts.hooks, lease, [], after or "-", limit)
        return [Pending(at.decode(), Hook(hook.decode()), uid.decode()) for at, hook, uid in rows]

    async def read(self, lease: Lease, pending: Pending) -> Delivery | None:
        """One of them; None when it has given way to newer ones."""
        key = names.hooks_key(self._flow, lease.partition)
        rows = await self._link.call("XRANGE", key, pending.entry, pending.entry)
        if not rows:
            return None
        fields = dict(zip(rows[0][1][::2], rows[0][1][1::2], strict=True))
        delivery = DELIVERIES.decode(fields[b"d"])
        known = {name: fields[key].decode() for key, name in _KNOWN_BY_SCRIPTS.items() if key in fields}
        return msgspec.structs.replace(delivery, **known) if known else delivery

    async def sent(self, lease: Lease, pending: Pending, why: str | None = None) -> None:
        """One has been told; or is given up, and kept with the reason why."""
        dead = names.dead_key(self._flow, lease.partition)
        await self._run(self._scripts.sent, lease, [dead], pending.entry, why or "")

    async def _run(self, script: Script, lease: Lease, keys: Sequence[str], *args: Argument) -> list[Any]:
        """What follows the status of a script that only the partition's owner may run."""
        held, hooks = names.lease_key(self._flow, lease.partition), names.hooks_key(self._flow, lease.partition)
        found: list[Any]
        status, *found = await self._link.run(
            script, len(keys) + 2, held, hooks, *keys, lease.worker, lease.token, *args
        )
        if status == Status.LOST:
            raise LeaseLost(f"partition {lease.partition} is no longer {lease.worker}'s")
        return found
