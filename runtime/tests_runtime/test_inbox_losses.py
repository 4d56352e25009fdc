"""Messages that are answered later: workers end over them, the state server forgets, or one cannot be read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import pytest
from chatflow_api import names
from chatflow_api.names import partition
from chatflow_runtime.domain.conversation import SCHEMA
from chatflow_runtime.domain.deliveries import Delivery
from chatflow_runtime.domain.reply import Notice
from chatflow_runtime.errors import ConversationBusy, StateError, StateSchemaTooNew, StateUnavailable
from chatflow_runtime.inbox_worker import AT_ONCE, CONVERSATIONS, HELD, SUSPECT, USER_HELD, WORKERS
from chatflow_runtime.ports import Lease, Letter, Taken
from chatflow_runtime.state import redis_inbox
from chatflow_runtime.state.codec import LETTERS, Codec
from chatflow_runtime.state.redis_inbox import RedisInbox
from tests_runtime.inbox_cases import Bot, answered, letter, office, said
from tests_runtime.state_cases import RULES, Case, memory_case, server_case
from tests_runtime.state_servers import StateServer, running_server
from tests_runtime.web_clients import eventually

P = partition("u")


def neighbours(count: int, of: int = P) -> list[str]:
    """Users whose messages come to one partition."""
    found: list[str] = []
    number = 0
    while len(found) < count:
        if partition(f"x{number}") == of:
            found.append(f"x{number}")
        number += 1
    return found


@dataclass
class Between:
    """The case's inbox, with something done before or after its next `done`; and cut off, as by the worker's death."""

    case: Case
    before: Callable[[], Awaitable[None]] | None = None
    after: Callable[[], Awaitable[None]] | None = None
    is_cut: bool = False

    @property
    def _inbox(self) -> RedisInbox:
        if self.is_cut:
            raise StateUnavailable("the worker is dead")
        assert isinstance(self.case.inbox, RedisInbox)
        return self.case.inbox

    async def left(self, lease: Lease) -> Sequence[Taken]:
        return await self._inbox.left(lease)

    async def take(self, lease: Lease, limit: int) -> Sequence[Taken]:
        return await self._inbox.take(lease, limit)

    async def begin(self, lease: Lease, taken: Taken) -> Letter | None:
        return await self._inbox.begin(lease, taken)

    async def ended(self, lease: Lease, taken: Taken) -> None:
        await self._inbox.ended(lease, taken)

    async def done(self, lease: Lease, taken: Taken, delivery: Delivery | None = None) -> bool:
        if self.before is not None:
            step, self.before = self.before, None
            await step()
        is_done = await self._inbox.done(lease, taken, delivery)
        if self.after is not None:
            step, self.after = self.after, None
            await step()
        return is_done

    async def bury(
        self, lease: Lease, taken: Taken, reason: str, notice: Notice, delivery: Delivery | None = None
    ) -> None:
        await self._inbox.bury(lease, taken, reason, notice, delivery)


@dataclass
class Deadly(Bot):
    """A bot that dies over one message, with its worker and whatever it was answering."""

    die: Callable[[], None] | None = None
    deadly: set[str] = field(default_factory=set)

    async def answer(self, uid: str, message_id: str, *args: object, **named: object) -> object:  # type: ignore[override]
        if message_id in self.deadly:
            self.begun.append(message_id)
            assert self.die is not None
            self.die()
            await asyncio.Event().wait()
        return await super().answer(uid, message_id, *args, **named)  # type: ignore[arg-type]


async def again(server: StateServer, case: Case) -> None:
    """The server as it was when it last saved: what a failover leaves that nobody waited for."""
    server.kill()
    server.start()
    async with asyncio.timeout(30):
        while True:
            try:
                await case.store.ping()
                assert isinstance(case.inbox, RedisInbox)
                await case.inbox._link.call("PING")
                return
            except StateError:
                await asyncio.sleep(0)


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_reply_that_a_failover_lost_is_given_again(moment: str) -> None:
    with running_server() as server:
        async with server_case(server.url) as case:
            gate = asyncio.Event()
            for name in ("m1", "m2"):
                await case.inbox.accept(letter("u", name))
            bot = Bot(case, gates={"m1": gate})

            is_back = asyncio.Event()

            async def crash() -> None:
                await again(server, case)
                # So long does the claim last that came back with the rest.
                case.time.advance(RULES.lease_ms + 1)
                is_back.set()

            reader = Between(case)
            setattr(reader, moment, crash)
            async with office(case, bot=bot, reader=reader):
                await eventually(lambda: bot.claimed == ["m1"])
                assert isinstance(case.inbox, RedisInbox)
                await case.inbox._link.call("SAVE")
                gate.set()
                await is_back.wait()
                # Lost with the news that it was given, it is found by a later look; m2 does not wait for that.
                await answered(case, "u", ["m1", "m2"] if moment == "before" else ["m2", "m1"])
            assert (await case.inbox.accept(letter("u", "m3"))).position == 0


async def test_a_message_that_ends_workers_is_given_up_and_none_beside_it() -> None:
    with running_server() as server:
        async with server_case(server.url) as case:
            beside = neighbours(CONVERSATIONS + 4)
            await case.inbox.accept(letter("u", "deadly"))
            await case.inbox.accept(letter("u", "behind"))
            for uid in beside:
                await case.inbox.accept(letter(uid, uid))
            deaths = 0
            while "failed deadly" not in await said(case, "u"):
                reader, gates = Between(case), {uid: asyncio.Event() for uid in beside}
                # What is beside it for the first time dies with it; later on it is answered.
                bot = Deadly(case, gates=gates if deaths < SUSPECT else {}, deadly={"deadly"})
                has_died = asyncio.Event()

                def die(reader: Between = reader, has_died: asyncio.Event = has_died) -> None:
                    reader.is_cut = True
                    has_died.set()

                bot.die = die
                async with office(case, f"worker-{deaths}", bot, reader) as at:
                    waits = [asyncio.ensure_future(has_died.wait()), asyncio.ensure_future(answered_all(case, beside))]
                    async with asyncio.timeout(30):
                        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                    if not has_died.is_set():
                        await answered(case, "u", ["failed deadly", "behind"])
                    for one in waits:
                        one.cancel()
                    await at.crash()
                deaths += has_died.is_set()
                case.time.advance(max(RULES.partition_lease_ms, RULES.lease_ms) + 1)
                assert deaths <= WORKERS
            assert deaths == WORKERS
            async with office(case, "last"):
                await answered(case, "u", ["failed deadly", "behind"])
                for uid in beside:
                    await answered(case, uid, [uid])


async def answered_all(case: Case, users: list[str]) -> None:
    for uid in users:
        await answered(case, uid, [uid])


async def test_a_message_is_handed_on_as_often_as_there_is_need() -> None:
    async with memory_case() as case:
        await case.inbox.accept(letter("u", "m1"))
        for number in range(WORKERS + 2):
            bot = Bot(case, {"m1": [ConversationBusy("busy")] * 1_000_000})
            async with office(case, f"worker-{number}", bot) as at:
                await eventually(lambda: len(at.bot.begun) > 3)
                at.task.cancel()
                await asyncio.gather(at.task, return_exceptions=True)
                await at.ownership.leave()
        async with office(case, "last"):
            await answered(case, "u", ["m1"])


async def put(case: Case, uid: str, message_id: str, body: bytes) -> None:
    """What another release leaves, or a fault, in the place of a message."""
    assert isinstance(case.inbox, RedisInbox)
    flow = case.inbox._flow
    fields = ("u", uid, "i", message_id, "d", body)
    await case.inbox._link.call("XADD", names.inbox_key(flow, partition(uid)), "*", *fields)


async def test_a_message_that_cannot_be_read_holds_up_its_own_conversation_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    newer, damaged, other = neighbours(3)
    with running_server() as server:
        async with server_case(server.url) as case:
            body = LETTERS.encode(letter(newer, "new"))
            await put(case, newer, "new", bytes((body[0], SCHEMA + 1)) + body[2:])
            await put(case, damaged, "bad", b"\x92\x01nonsense")
            assert isinstance(case.inbox, RedisInbox)
            await case.inbox._link.call("XADD", names.inbox_key(case.inbox._flow, P), "*", "d", body)
            for uid in (newer, damaged, other):
                await case.inbox.accept(letter(uid, "next"))
            async with office(case, "old") as at:
                await answered(case, other, ["next"])
                await answered(case, damaged, ["failed bad", "next"])
                assert await said(case, newer) == []
                at.task.cancel()
                await asyncio.gather(at.task, return_exceptions=True)
                await at.ownership.leave()
            reasons = await case.dead(P)
            assert len(reasons) == 2
            assert "no message" in reasons[0]
            assert "damaged" in reasons[1]
            monkeypatch.setattr(redis_inbox, "LETTERS", Codec(Letter, schema=SCHEMA + 1))
            async with office(case, "new"):
                await answered(case, newer, ["new", "next"])


async def test_conversations_that_are_stuck_leave_room_for_others() -> None:
    async with memory_case() as case:
        stuck = [f"stuck-{number}" for number in range(HELD // RULES.waiters)]
        faults: dict[str, list[Exception]] = {f"{uid}-0": [StateSchemaTooNew("newer")] * 1_000_000 for uid in stuck}
        for uid in stuck:
            for number in range(RULES.waiters):
                await case.inbox.accept(letter(uid, f"{uid}-{number}"))
        assert len(stuck) * RULES.waiters >= HELD > len(stuck) * USER_HELD
        async with office(case, bot=Bot(case, faults)) as at:
            await eventually(lambda: len(at.bot.begun) > len(stuck))
            await case.inbox.accept(letter("u", "m1"))
            at.worker.wake(P)
            await answered(case, "u", ["m1"])


async def test_a_partition_with_many_messages_keeps_no_other_waiting() -> None:
    async with memory_case() as case:
        crowd = neighbours(20 * AT_ONCE, of=0)
        for uid in crowd:
            await case.inbox.accept(letter(uid, uid))
        assert P > 0
        await case.inbox.accept(letter("u", "m1"))
        async with office(case) as at:
            for uid in (*crowd, "u"):
                await answered(case, uid, ["m1" if uid == "u" else uid])
        assert at.bot.begun.index("m1") <= 2 * AT_ONCE
