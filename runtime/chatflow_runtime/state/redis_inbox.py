"""Messages that are answered later, on Redis or Valkey: ports.Inbox for gateways, ports.InboxReader for workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chatflow_api import names

from chatflow_runtime.domain.deliveries import Delivery
from chatflow_runtime.domain.reply import Notice
from chatflow_runtime.errors import ConversationBusy, InboxFull, LeaseLost, RateLimited
from chatflow_runtime.ports import Accepted, Clock, Lease, Letter, Taken
from chatflow_runtime.state.codec import DELIVERIES, LETTERS, NOTICES
from chatflow_runtime.state.keys import keys_of
from chatflow_runtime.state.link import Link
from chatflow_runtime.state.rules import Rules
from chatflow_runtime.state.scripts import Script, Status, render
from chatflow_runtime.state.stream_id import StreamId
from chatflow_runtime.state.wire import Argument


class RedisInbox:
    """Inbox and InboxReader over one connection."""

    def __init__(
        self, link: Link, flow: str, rules: Rules, clock: Clock | None = None, *, lasting: Link | None = None
    ) -> None:
        """With a `clock` its time takes the place of the server's (tests). `lasting`: as in `RedisStore`."""
        self._clock = clock
        self._link = link
        self._lasting = lasting or link
        self._flow = flow
        self._scripts = render(rules)

    async def accept(self, letter: Letter) -> Accepted:
        """Keep a message, once however often it is sent; InboxFull, ConversationBusy when too many wait already."""
        number, keys = names.partition(letter.uid), keys_of(self._flow, letter.uid)
        status, *found = await self._lasting.run(
            self._scripts.accept,
            5,
            names.inbox_key(self._flow, number),
            names.accepted_key(self._flow, number),
            keys.outbox,
            keys.replies,
            keys.rate,
            letter.message_id,
            letter.uid,
            LETTERS.encode(letter),
            names.work_channel(self._flow, number),
            number,
            self._now(),
        )
        match Status(status):
            case Status.DONE:
                return Accepted(found[0], found[1].decode())
            case Status.ANSWERED:
                return Accepted(0, str(StreamId.of(found[0].decode()).preceding()))
            case Status.LIMITED:
                raise RateLimited("this user", found[0])
            case Status.FULL:
                raise InboxFull(f"{found[0]} messages wait to be answered; send this one again in a few seconds")
            case Status.REJECTED:
                raise ConversationBusy(f"{found[0]} messages of this user wait already; send this one after a reply")
            case other:
                raise AssertionError(f"accept.lua returned {other!r}")

    def _now(self) -> str | int:
        return "" if self._clock is None else self._clock.now_ms()

    async def left(self, lease: Lease) -> Sequence[Taken]:
        """What has been taken and not answered, by owners before and by this one, oldest first."""
        return _taken(await self._run(self._scripts.left, lease, self._dead(lease)))

    async def take(self, lease: Lease, limit: int) -> Sequence[Taken]:
        """New messages, oldest first."""
        return _taken(await self._run(self._scripts.take, lease, self._dead(lease), limit))

    async def begin(self, lease: Lease, taken: Taken) -> Letter | None:
        """Count an attempt at a message, and read it; None when it is no longer the worker's to answer."""
        found = await self._run(self._scripts.attempt, lease, self._dead(lease), taken.entry, taken.attempts + 1)
        return LETTERS.decode(found[0]) if found else None

    async def ended(self, lease: Lease, taken: Taken) -> None:
        """The attempt has ended without an answer, and its worker goes on: it does not count."""
        await self._run(self._scripts.attempt, lease, self._dead(lease), taken.entry, taken.attempts)

    async def done(self, lease: Lease, taken: Taken, delivery: Delivery | None = None) -> bool:
        """A message is answered, and a webhook to be told of it, once. False when its reply is lost."""
        keys = self._leaving(lease, taken)
        status, *_ = await self._asked(self._scripts.done, lease, keys, *self._left_behind(lease, taken, delivery))
        return Status(status) is Status.DONE

    async def bury(
        self, lease: Lease, taken: Taken, reason: str, notice: Notice, delivery: Delivery | None = None
    ) -> None:
        """A message cannot be answered: keep it with the reason, tell the user, and a webhook."""
        await self._run(
            self._scripts.bury,
            lease,
            self._leaving(lease, taken),
            *self._left_behind(lease, taken, delivery),
            reason,
            NOTICES.encode(notice),
            keys_of(self._flow, taken.uid).channel,
        )

    def _leaving(self, lease: Lease, taken: Taken) -> list[str]:
        """The keys of a message that leaves the inbox, beside the inbox itself."""
        keys = [of(self._flow, lease.partition) for of in (names.accepted_key, names.hooks_key, names.dead_key)]
        of = keys_of(self._flow, taken.uid)
        return [*keys, of.outbox, of.replies]

    def _dead(self, lease: Lease) -> list[str]:
        return [names.dead_key(self._flow, lease.partition)]

    def _left_behind(self, lease: Lease, taken: Taken, delivery: Delivery | None) -> list[Argument]:
        """Which message leaves, and what is said of it to whom."""
        told = ("", "") if delivery is None else (delivery.hook, DELIVERIES.encode(delivery))
        channel = names.work_channel(self._flow, lease.partition)
        return [taken.entry, taken.uid, taken.message_id, *told, channel, lease.partition]

    async def _run(self, script: Script, lease: Lease, keys: Sequence[str], *args: Argument) -> list[Any]:
        """What follows the status of a script that only the partition's owner may run."""
        return (await self._asked(script, lease, keys, *args))[1:]

    async def _asked(self, script: Script, lease: Lease, keys: Sequence[str], *args: Argument) -> list[Any]:
        """What such a script returns, unless that is LOST."""
        held = names.lease_key(self._flow, lease.partition)
        inbox = names.inbox_key(self._flow, lease.partition)
        result: list[Any] = await self._link.run(
            script, len(keys) + 2, held, inbox, *keys, lease.worker, lease.token, *args
        )
        if result[0] == Status.LOST:
            raise LeaseLost(f"partition {lease.partition} is no longer {lease.worker}'s")
        return result


def _taken(rows: Sequence[list[Any]]) -> list[Taken]:
    return [Taken(at.decode(), uid.decode(), message_id.decode(), attempts) for at, uid, message_id, attempts in rows]
