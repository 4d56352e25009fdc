"""What the state tests share: a clock that they set, the stores under test, and shorthand for turns and outcomes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Literal

from chatflow_api import names
from chatflow_runtime.domain.conversation import Event, Memory, Scene
from chatflow_runtime.domain.deliveries import Delivery
from chatflow_runtime.domain.reply import Origin, Reply, Rung
from chatflow_runtime.ownership import Ownership
from chatflow_runtime.ports import (
    Attendance,
    Claimed,
    Clock,
    Committed,
    ConversationStore,
    DueStore,
    Handoffs,
    HookReader,
    Lease,
    LeaseStore,
    Outcome,
    Record,
    RecordKind,
    Taken,
    Turn,
)
from chatflow_runtime.state.connection import Patience
from chatflow_runtime.state.link import Link, link_to
from chatflow_runtime.state.memory_handoffs import MemoryHandoffs
from chatflow_runtime.state.memory_hooks import MemoryHooks
from chatflow_runtime.state.memory_inbox import MemoryInbox
from chatflow_runtime.state.memory_leases import MemoryLeases
from chatflow_runtime.state.memory_store import MemoryStore
from chatflow_runtime.state.redis_due import RedisDueStore
from chatflow_runtime.state.redis_handoffs import RedisHandoffs
from chatflow_runtime.state.redis_hooks import RedisHooks
from chatflow_runtime.state.redis_inbox import RedisInbox
from chatflow_runtime.state.redis_leases import RedisLeases
from chatflow_runtime.state.redis_store import open_redis_store
from chatflow_runtime.state.rules import Rules
from chatflow_runtime.state.scripts import render

PATIENT = Patience(timeout_s=30.0)
"""For tests that are not about time: the machine may be busy with other things."""
RULES = Rules(ttl_ms=600_000, notice_ms=30_000, history_messages=20)

_flows = count(1)


def new_flow() -> str:
    """A flow key of its own, so that tests share a server."""
    return f"flow-{next(_flows)}"


@dataclass
class ManualClock:
    """Wall time that moves when it is told to."""

    at_ms: int = 1_790_000_000_000

    @property
    def clock(self) -> Clock:
        """For a store."""
        return Clock(now_ms=lambda: self.at_ms)

    def advance(self, ms: int) -> None:
        """Let time pass."""
        self.at_ms += ms


def notice_text(kind: Literal["closing", "ended"], seconds: float) -> str:
    """A NoticeText that shows what it was given."""
    return f"{kind} {seconds:g}"


@dataclass
class Case:
    """The stores on one state."""

    store: ConversationStore
    due: DueStore
    leases: LeaseStore
    inbox: RedisInbox | MemoryInbox
    hooks: HookReader
    handoffs: Handoffs
    dead: Callable[[int], Awaitable[list[str]]]
    """Why the dead letters of a partition are dead."""
    time: ManualClock
    attempts: count[int] = field(default_factory=lambda: count(1))

    def ownership(self, worker: str = "worker") -> Ownership:
        """The leases of one worker, by the case's clock."""
        return Ownership(self.leases, worker, lambda: self.time.at_ms / 1000)

    async def lease(self, partition: int, worker: str = "worker") -> Lease:
        """Take a partition for a worker of whom nobody else knows, so that it has no share in the others."""
        token = await self.leases.lease(partition, worker, Attendance(self.time.at_ms, (worker,), is_new=True))
        assert token is not None
        return Lease(partition, worker, token)

    def turn(self, message_id: str, uid: str = "u", text: str | None = None, address: str | None = None) -> Turn:
        """A new attempt at a message."""
        text = f"text of {message_id}" if text is None else text
        return Turn(uid=uid, message_id=message_id, owner=f"owner-{next(self.attempts)}", text=text, address=address)

    async def claim(self, turn: Turn) -> Claimed:
        """Load, which must claim."""
        loaded = await self.store.load(turn)
        assert isinstance(loaded, Claimed), loaded
        return loaded

    async def answer(
        self, message_id: str, uid: str = "u", event: Event = Event.ANSWERED, memory: Memory | None = None
    ) -> Committed:
        """A whole turn."""
        turn = self.turn(message_id, uid)
        claimed = await self.claim(turn)
        return await self.store.commit(turn, claimed.conversation, outcome(turn, event, memory))

    async def finish(self, lease: Lease, taken: Taken, delivery: Delivery | None = None) -> None:
        """Answer a message that was taken from the inbox, which is told."""
        await self.answer(taken.message_id, taken.uid)
        assert await self.inbox.done(lease, taken, delivery)


def reply(message_id: str, text: str = "") -> Reply:
    """A reply."""
    text = text or f"reply to {message_id}"
    return Reply(message_id=message_id, text=text, rung=Rung.L0, origin=Origin.KNOWLEDGE, scene=Scene.ANSWER)


def outcome(turn: Turn, event: Event = Event.ANSWERED, memory: Memory | None = None, *records: Record) -> Outcome:
    """What a turn commits."""
    return Outcome(event=event, memory=memory or Memory(), reply=reply(turn.message_id), records=records)


def record(uid: str = "u", kind: RecordKind = RecordKind.LABELLING, **fields: str | float | int | None) -> Record:
    """A record of one second past the clock's beginning."""
    return Record(kind=kind, uid=uid, at_ms=1_790_000_001_000, fields=fields)


Open = Callable[[Rules], AbstractAsyncContextManager[Case]]
"""Opens the stores of one kind, with rules of one's choice."""


@asynccontextmanager
async def memory_case(rules: Rules = RULES) -> AsyncIterator[Case]:
    """The in-memory twin."""
    time = ManualClock()
    store = MemoryStore(rules, time.clock, notice_text)
    leases = MemoryLeases(rules, time.clock)
    inbox = MemoryInbox(rules, store, leases)

    async def dead(partition: int) -> list[str]:
        letters = [why for _, why in inbox.dead(partition)]
        return letters + [why for _, why in store.hooks.of(partition).dead]

    yield Case(store, store, leases, inbox, MemoryHooks(store.hooks, leases), MemoryHandoffs(store), dead, time)


@asynccontextmanager
async def _opened_link(url: str, rules: Rules) -> AsyncIterator[Link]:
    """A connection as a worker has one."""
    link = link_to(url, scripts=render(rules).all(), patience=PATIENT)
    try:
        await link.open()
        yield link
    finally:
        await link.close()


@asynccontextmanager
async def server_case(url: str, rules: Rules = RULES, flow: str | None = None) -> AsyncIterator[Case]:
    """The Redis stores on a server."""
    time, flow = ManualClock(), flow or new_flow()
    async with (
        open_redis_store(url, flow, rules, clock=time.clock, patience=PATIENT) as store,
        _opened_link(url, rules) as link,
    ):
        due, leases = (
            RedisDueStore(link, flow, rules, notice_text, time.clock),
            RedisLeases(link, flow, rules, time.clock),
        )

        async def dead(partition: int) -> list[str]:
            rows = await link.call("XRANGE", names.dead_key(flow, partition), "-", "+")
            return [dict(zip(fields[::2], fields[1::2], strict=True))[b"why"].decode() for _, fields in rows]

        inbox, hooks = RedisInbox(link, flow, rules, time.clock), RedisHooks(link, flow, rules)
        handoffs = RedisHandoffs(link, flow, rules, time.clock)
        yield Case(store, due, leases, inbox, hooks, handoffs, dead, time)
