"""The in-memory twin and the real servers agree on every result, whatever is done in whatever order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import pytest
from chatflow_api.names import partition
from chatflow_api.v1alpha1 import WhileBusy
from chatflow_runtime.domain.conversation import Conversation, Event, Memory, Message, Scene
from chatflow_runtime.domain.deliveries import Delivery, HandoffMessage, Hook
from chatflow_runtime.domain.reply import Notice
from chatflow_runtime.errors import ChatFlowError
from chatflow_runtime.ports import (
    Claimed,
    Handoffs,
    HookReader,
    Lease,
    LeaseStore,
    Outcome,
    Record,
    RecordKind,
    Turn,
    Word,
)
from chatflow_runtime.state.connection import Connection
from chatflow_runtime.state.memory_handoffs import MemoryHandoffs
from chatflow_runtime.state.memory_hooks import MemoryHooks
from chatflow_runtime.state.memory_leases import MemoryLeases
from chatflow_runtime.state.memory_store import MemoryStore
from chatflow_runtime.state.redis_due import RedisDueStore
from chatflow_runtime.state.redis_handoffs import RedisHandoffs
from chatflow_runtime.state.redis_hooks import RedisHooks
from chatflow_runtime.state.redis_leases import RedisLeases
from chatflow_runtime.state.redis_store import RedisStore
from chatflow_runtime.state.rules import Rules
from chatflow_runtime.state.wakeups import Wakeups
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests_runtime.state_cases import PATIENT, ManualClock, new_flow, notice_text, record, reply
from tests_runtime.state_servers import ServerKind, Servers, installed

# Two users of one partition, so that sweeps meet both.
USERS = ("u", next(uid for uid in map(str, range(10_000)) if partition(uid) == partition("u")))
NUMBER = partition("u")
SMALL = Rules(
    ttl_ms=60_000,
    notice_ms=10_000,
    history_messages=4,
    waiters=2,
    outbox_items=4,
    while_busy={
        Scene.GREETING: WhileBusy.ENQUEUE,
        Scene.COLLECT: WhileBusy.REJECT,
        Scene.ANSWER: WhileBusy.INTERRUPT,
        Scene.EVALUATE: WhileBusy.ENQUEUE,
        Scene.HANDOFF: WhileBusy.INTERRUPT,
        Scene.END: WhileBusy.ENQUEUE,
    },
)
"""Small bounds and every policy, so that short sequences reach them."""


@dataclass(frozen=True)
class Step:
    """One operation of the sequence."""

    verb: str
    uid: str
    message: int
    attempt: int
    event: Event
    ms: int

    @property
    def turn(self) -> Turn:
        message_id = f"m{self.message}"
        return Turn(self.uid, message_id, owner=f"o{self.attempt}", text=f"text of {message_id}")


VERBS = (
    *("answer",) * 4,
    *("load",) * 4,
    *("commit",) * 3,
    *("advance",) * 4,
    *("sweep",) * 3,
    *("renew", "release", "rate", "look"),
    *("hand",) * 2,
    *("speak", "speak", "return"),
)
STEPS = st.lists(
    st.builds(
        Step,
        verb=st.sampled_from(VERBS),
        uid=st.sampled_from(USERS),
        message=st.integers(0, 3),
        attempt=st.integers(0, 1),
        event=st.sampled_from(list(Event)),
        ms=st.sampled_from([1, 400, 1_000, 2_999, 5_000, 10_000, 50_000, 60_000]),
    ),
    max_size=50,
)


class Runner:
    """Runs steps on one store and notes what came back, stream ids replaced by their order of appearance."""

    def __init__(
        self,
        store: RedisStore | MemoryStore,
        due: RedisDueStore | MemoryStore,
        handoffs: Handoffs,
        hooks: HookReader,
        leases: LeaseStore,
        time: ManualClock,
    ) -> None:
        self._store = store
        self._due = due
        self._handoffs = handoffs
        self._hooks = hooks
        self._leases = leases
        self._time = time
        self._loaded: dict[Turn, Conversation] = {}
        self._ids: dict[tuple[str, str], str] = {}

    async def run(self, steps: list[Step]) -> list[tuple[str, Any]]:
        results = []
        for step in steps:
            try:
                result = await self._do(step)
            except ChatFlowError as error:
                result = type(error).__name__
            results.append((f"{step.verb} {step.turn.message_id} {step.turn.owner}", self._named(step.uid, result)))
        results.extend([("end", self._named(uid, await self._look(uid))) for uid in USERS])
        results.append(("told", await self._told()))
        return results

    async def _told(self) -> list[Any]:
        """What webhooks are to be told, in order."""
        token = await self._leases.lease(NUMBER, "worker", await self._leases.attend("worker"))
        assert token is not None
        lease = Lease(NUMBER, "worker", token)
        waiting = await self._hooks.waiting(lease, None, 1000)
        read = [await self._hooks.read(lease, one) for one in waiting]
        return [(one.uid, msgspec.to_builtins(delivery)) for one, delivery in zip(waiting, read, strict=True)]

    async def _hand_over(self, step: Step) -> Any:
        """A turn that begins a handoff, or goes on with the one that lasts."""
        turn = step.turn
        loaded = await self._store.load(turn)
        if not isinstance(loaded, Claimed):
            return loaded
        lasting = loaded.conversation.handoff
        message = Message("user", turn.text, 1, turn.message_id)
        told = Delivery(Hook.HANDOFF, HandoffMessage(step.uid, message), 1, handoff_id=lasting or f"h{step.ms}")
        event = Event.HANDED_OVER if lasting is None else Event.RELAYED
        answer = reply(turn.message_id) if lasting is None else msgspec.structs.replace(reply("-"), text="")
        return await self._store.commit(turn, loaded.conversation, Outcome(event, Memory(), answer, (), told))

    async def _do(self, step: Step) -> Any:
        turn = step.turn
        match step.verb:
            case "answer":
                await self._do(replace(step, verb="load"))
                return await self._do(replace(step, verb="commit"))
            case "load":
                loaded = await self._store.load(turn)
                if isinstance(loaded, Claimed):
                    self._loaded[turn] = loaded.conversation
                return loaded
            case "commit":
                memory = Memory(asked=step.ms)
                outcome = Outcome(step.event, memory, reply(turn.message_id), (record(step.uid, n=step.ms),))
                return await self._store.commit(turn, self._loaded.get(turn, Conversation()), outcome)
            case "hand":
                return await self._hand_over(step)
            case "speak" | "return":
                ends = step.verb == "return"
                notice = Notice("returned" if ends else "agent", "words", 1, f"a{step.message}", "Ann")
                word = Word(step.uid, f"a{step.message}", "words" if step.attempt else None, "Ann", notice, ends)
                return {"id": await self._handoffs.speak(word)}
            case "advance":
                return self._time.advance(step.ms)
            case "sweep":
                return await self._due.sweep(NUMBER)
            case "renew":
                return await self._store.renew(turn)
            case "release":
                return await self._store.release(turn)
            case "rate":
                return await self._store.rate(step.uid, record(step.uid, RecordKind.RATING, stars=step.attempt))
            case "look":
                return await self._look(step.uid)
            case other:
                raise AssertionError(other)

    async def _look(self, uid: str) -> Any:
        records: list[Record] = list(await self._due.records(NUMBER, 1000))
        history, outbox = await self._store.history(uid), list(await self._store.outbox(uid, "0"))
        return history, outbox, records, await self._handoffs.look(uid)

    def _named(self, uid: str, value: Any) -> Any:
        """The value as plain data, with names for the ids that the store gave. Streams share ids now and then."""
        plain = msgspec.to_builtins(value)
        if isinstance(plain, dict):
            named = {key: self._named(uid, item) for key, item in plain.items()}
            if "id" in plain:
                stream = "records" if "kind" in plain else uid
                named["id"] = self._ids.setdefault((stream, plain["id"]), f"id {len(self._ids)}")
            return named
        return [self._named(uid, item) for item in plain] if isinstance(plain, list | tuple) else plain


@pytest.fixture(params=installed())
def outcome_of(request: pytest.FixtureRequest, state_servers: Servers) -> Iterator[Callable[[list[Step]], Any]]:
    """Runs steps on a real server, every time as a new flow on the same connection."""
    url = state_servers(ServerKind(request.param)).url
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def connect() -> tuple[Connection, Wakeups]:
            connection, wakeups = Connection(url, patience=PATIENT), Wakeups(url, "none", patience=PATIENT)
            await connection.open()
            stack.push_async_callback(connection.close)
            return connection, wakeups

        connection, wakeups = runner.run(connect())

        def run(steps: list[Step]) -> Any:
            time, flow = ManualClock(), new_flow()
            store = RedisStore(connection, wakeups, flow, SMALL, time.clock)
            due = RedisDueStore(connection, flow, SMALL, notice_text, time.clock)
            handoffs = RedisHandoffs(connection, flow, SMALL, time.clock)
            hooks, leases = RedisHooks(connection, flow, SMALL), RedisLeases(connection, flow, SMALL, time.clock)
            return runner.run(Runner(store, due, handoffs, hooks, leases, time).run(steps))

        yield run
        runner.run(stack.aclose())


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=STEPS)
def test_the_twin_does_what_the_servers_do(outcome_of: Callable[[list[Step]], Any], steps: list[Step]) -> None:
    time = ManualClock()
    twin = MemoryStore(SMALL, time.clock, notice_text)
    leases = MemoryLeases(SMALL, time.clock)
    hooks = MemoryHooks(twin.hooks, leases)
    expected = asyncio.run(Runner(twin, twin, MemoryHandoffs(twin), hooks, leases, time).run(steps))
    assert outcome_of([replace(step) for step in steps]) == expected
