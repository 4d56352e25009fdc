"""What falls due between turns, on Redis or Valkey: ports.DueStore. The worker's side of `redis_store`'s keys."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

import msgspec
from chatflow_api import names

from chatflow_runtime.domain.conversation import Event
from chatflow_runtime.domain.deliveries import Hook
from chatflow_runtime.domain.handoff import timed_out
from chatflow_runtime.domain.reply import Notice
from chatflow_runtime.ports import Clock, NoticeText, Record
from chatflow_runtime.state.codec import DELIVERIES, NOTICES, RECORDS
from chatflow_runtime.state.link import Link
from chatflow_runtime.state.rules import Rules
from chatflow_runtime.state.scripts import Status, render

_ATTEMPTS = 3
"""How often a closing notice is written anew because the seconds it names have passed meanwhile."""


class RedisDueStore:
    """DueStore over one connection. With a `clock` its time takes the place of the server's (tests)."""

    def __init__(
        self, link: Link, flow: str, rules: Rules, notice_text: NoticeText, clock: Clock | None = None
    ) -> None:
        self._link = link
        self._flow = flow
        self._rules = rules
        self._notice_text = notice_text
        self._scripts = render(rules)
        self._clock = clock

    async def sweep(self, partition: int) -> int:
        """Send the closing notices and end the conversations that are due; how many were touched. Safe to repeat: a
        user whose sweep fails is due again after a lease."""
        due = names.due_key(self._flow, partition)
        touched = 0
        while True:
            now_ms, *uids = await self._link.run(self._scripts.due, 1, due, self._now())
            if uids:
                settled = await asyncio.gather(*(self._settle(partition, uid.decode(), now_ms) for uid in uids))
                touched += sum(settled)
            if len(uids) < self._rules.sweep_users:
                return touched

    async def records(self, partition: int, limit: int) -> Sequence[Record]:
        """Records not yet discarded, oldest first."""
        key = names.records_key(self._flow, partition)
        rows = await self._link.call("XRANGE", key, "-", "+", "COUNT", limit)
        return [msgspec.structs.replace(RECORDS.decode(fields[1]), id=at.decode()) for at, fields in rows]

    async def discard(self, partition: int, records: Sequence[Record]) -> None:
        """Remove records that a sink has kept."""
        if records:
            key = names.records_key(self._flow, partition)
            await self._link.call("XDEL", key, *(record.id for record in records))

    async def _settle(self, partition: int, uid: str, now_ms: int) -> bool:
        """Whether a notice went out."""
        left_ms = self._rules.notice_ms
        for _ in range(_ATTEMPTS):
            left_s = math.ceil(left_ms / 1000)
            status, *rest = await self._link.run(
                self._scripts.settle,
                5,
                names.conversation_key(self._flow, uid),
                names.due_key(self._flow, partition),
                names.outbox_key(self._flow, uid),
                names.hooks_key(self._flow, partition),
                names.dead_key(self._flow, partition),
                self._now(),
                uid,
                Event.TIMED_OUT,
                left_s * 1000,
                NOTICES.encode(Notice("closing", self._notice_text("closing", left_s), now_ms)),
                NOTICES.encode(Notice("ended", self._notice_text("ended", 0), now_ms)),
                names.wake_channel(self._flow, partition),
                Hook.HANDOFF,
                DELIVERIES.encode(timed_out(uid, now_ms)),
                names.work_channel(self._flow, partition),
                partition,
            )
            if status != Status.OTHER_TIME:
                return status in (Status.CLOSING, Status.ENDED)
            left_ms = rest[0]
        return False

    def _now(self) -> str | int:
        return "" if self._clock is None else self._clock.now_ms()
