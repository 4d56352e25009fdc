"""The in-memory twin of `redis_inbox`, beside those of the conversations and the leases, which it looks into."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from chatflow_api import names
from msgspec.structs import replace

from chatflow_runtime.domain.deliveries import Delivery
from chatflow_runtime.domain.reply import Notice
from chatflow_runtime.errors import ConversationBusy, InboxFull, LeaseLost, RateLimited
from chatflow_runtime.ports import Accepted, Lease, Letter, Taken
from chatflow_runtime.state.memory_leases import MemoryLeases
from chatflow_runtime.state.memory_store import MemoryStore
from chatflow_runtime.state.rules import Rules
from chatflow_runtime.state.stream_id import StreamId


@dataclass(slots=True)
class _Waiting:
    letter: Letter
    accepted: Accepted
    is_taken: bool = False
    attempts: int = 0


@dataclass(slots=True)
class _Partition:
    waiting: dict[str, _Waiting] = field(default_factory=dict)
    dead: list[tuple[Letter, str]] = field(default_factory=list)


class MemoryInbox:
    """Inbox and InboxReader without a server."""

    def __init__(self, rules: Rules, store: MemoryStore, leases: MemoryLeases) -> None:
        self._rules = rules
        self._store = store
        self._leases = leases
        self._partitions: dict[int, _Partition] = {}
        self._entries = itertools.count(1)

    async def accept(self, letter: Letter) -> Accepted:
        """Keep a message, once however often it is sent; InboxFull, ConversationBusy when too many wait already."""
        waiting = self._of(names.partition(letter.uid)).waiting
        for one in waiting.values():
            if (one.letter.uid, one.letter.message_id) == (letter.uid, letter.message_id):
                return Accepted(min(one.accepted.position, len(waiting) - 1), one.accepted.resume)
        answered = self._store.answered_at(letter.uid, letter.message_id)
        if answered is not None:
            return Accepted(0, str(StreamId.of(answered).preceding()))
        if len(waiting) >= self._rules.inbox_letters:
            raise InboxFull(f"{len(waiting)} messages wait to be answered; send this one again in a few seconds")
        own = sum(one.letter.uid == letter.uid for one in waiting.values())
        if own >= self._rules.waiters:
            raise ConversationBusy(f"{own} messages of this user wait already; send this one after a reply")
        if retry_ms := self._store.charge(f"user {letter.uid}", self._rules.user_rate):
            raise RateLimited("this user", retry_ms)
        kept = await self._store.outbox(letter.uid, "0", self._rules.outbox_items)
        accepted = Accepted(len(waiting), kept[-1].id if kept else "0-0")
        waiting[str(next(self._entries))] = _Waiting(letter, accepted)
        return accepted

    async def left(self, lease: Lease) -> Sequence[Taken]:
        """What has been taken and not answered, by owners before and by this one, oldest first."""
        return [_taken(entry, one) for entry, one in self._held(lease).waiting.items() if one.is_taken]

    async def take(self, lease: Lease, limit: int) -> Sequence[Taken]:
        """New messages, oldest first."""
        new = [(entry, one) for entry, one in self._held(lease).waiting.items() if not one.is_taken][:limit]
        for _, one in new:
            one.is_taken = True
        return [_taken(entry, one) for entry, one in new]

    async def begin(self, lease: Lease, taken: Taken) -> Letter | None:
        """Count an attempt at a message, and read it; None when it is no longer the worker's to answer."""
        return self._counted(lease, taken.entry, taken.attempts + 1)

    async def ended(self, lease: Lease, taken: Taken) -> None:
        """The attempt has ended without an answer, and its worker goes on: it does not count."""
        self._counted(lease, taken.entry, taken.attempts)

    async def done(self, lease: Lease, taken: Taken, delivery: Delivery | None = None) -> bool:
        """A message is answered, and a webhook to be told of it, once. False when its reply is lost."""
        waiting = self._held(lease).waiting
        if taken.entry not in waiting:
            return True
        if self._store.answered_at(taken.uid, taken.message_id) is None:
            return False
        del waiting[taken.entry]
        self._store.tell(taken.uid, delivery)
        return True

    async def bury(
        self, lease: Lease, taken: Taken, reason: str, notice: Notice, delivery: Delivery | None = None
    ) -> None:
        """A message cannot be answered: keep it with the reason, tell the user, and a webhook."""
        partition = self._held(lease)
        one = partition.waiting.pop(taken.entry, None)
        if one is None:
            return
        if self._store.answered_at(taken.uid, taken.message_id) is not None:
            return
        partition.dead.append((one.letter, reason))
        outbox_id = self._store.notify(taken.uid, notice)
        if delivery is not None:
            self._store.tell(taken.uid, replace(delivery, outbox_id=outbox_id))

    def dead(self, number: int) -> Sequence[tuple[Letter, str]]:
        """The messages of a partition that were given up, each with the reason."""
        return self._of(number).dead

    def _counted(self, lease: Lease, entry: str, attempts: int) -> Letter | None:
        one = self._held(lease).waiting.get(entry)
        if one is None:
            return None
        one.attempts = attempts
        return one.letter

    def _held(self, lease: Lease) -> _Partition:
        if not self._leases.holds(lease.partition, lease.worker, lease.token):
            raise LeaseLost(f"partition {lease.partition} is no longer {lease.worker}'s")
        return self._of(lease.partition)

    def _of(self, number: int) -> _Partition:
        return self._partitions.setdefault(number, _Partition())


def _taken(entry: str, one: _Waiting) -> Taken:
    return Taken(entry, one.letter.uid, one.letter.message_id, one.attempts)
