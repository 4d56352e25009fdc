"""Messages that are answered later: the worker over the twin and a real server, with a bot that fails as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from chatflow_api.names import partition
from chatflow_runtime.domain.deliveries import Delivery, Hook, MessageAnswered, MessageFailed
from chatflow_runtime.domain.reply import Notice, Reply
from chatflow_runtime.errors import (
    ChatFlowError,
    ClaimLost,
    ConversationBusy,
    Interrupted,
    InvalidMessage,
    StateUnavailable,
)
from chatflow_runtime.inbox_worker import ATTEMPTS, HELD, PAUSES_S
from chatflow_runtime.ports import Lease, Letter, Taken
from tests_runtime.inbox_cases import Bot, answered, letter, office, said
from tests_runtime.state_cases import RULES, Case, Open, memory_case
from tests_runtime.web_clients import eventually


@dataclass
class Lossy:
    """The case's inbox, whose answers to the named calls are lost on their way once each."""

    case: Case
    losses: set[str]

    async def _lost(self, call: str) -> None:
        if call in self.losses:
            self.losses.remove(call)
            raise StateUnavailable(f"no answer to {call}")

    async def left(self, lease: Lease) -> Sequence[Taken]:
        found = await self.case.inbox.left(lease)
        await self._lost("left")
        return found

    async def take(self, lease: Lease, limit: int) -> Sequence[Taken]:
        found = await self.case.inbox.take(lease, limit)
        if found:
            await self._lost("take")
        return found

    async def begin(self, lease: Lease, taken: Taken) -> Letter | None:
        found = await self.case.inbox.begin(lease, taken)
        await self._lost("begin")
        return found

    async def ended(self, lease: Lease, taken: Taken) -> None:
        await self.case.inbox.ended(lease, taken)
        await self._lost("ended")

    async def done(self, lease: Lease, taken: Taken, delivery: Delivery | None = None) -> bool:
        is_done = await self.case.inbox.done(lease, taken, delivery)
        await self._lost("done")
        return is_done

    async def bury(
        self, lease: Lease, taken: Taken, reason: str, notice: Notice, delivery: Delivery | None = None
    ) -> None:
        await self.case.inbox.bury(lease, taken, reason, notice, delivery)
        await self._lost("bury")


async def test_each_user_s_messages_are_answered_once_and_in_order_beside_the_others(open_case: Open) -> None:
    async with open_case(RULES) as case, office(case) as at:
        users = [f"user-{number}" for number in range(12)]
        for number in range(20):
            for uid in users:
                await case.inbox.accept(letter(uid, f"m{number}"))
                at.worker.wake(partition(uid))
        for uid in users:
            await answered(case, uid, [f"m{number}" for number in range(20)])
        assert len(at.bot.begun) == 240
        assert at.bot.most <= len(users)
        for uid in users:
            assert (await case.inbox.accept(letter(uid, "last"))).position == 0


async def test_a_wake_up_that_is_lost_costs_time_and_no_message() -> None:
    async with memory_case() as case:
        await case.inbox.accept(letter("u", "before"))
        async with office(case):
            await answered(case, "u", ["before"])
            await case.inbox.accept(letter("u", "unheard"))
            await answered(case, "u", ["before", "unheard"])


async def test_more_than_is_held_at_once_waits_in_the_inbox() -> None:
    async with memory_case() as case, office(case) as at:
        users = [f"u{number}" for number in range(HELD + 40)]
        at.bot.gates = {uid: asyncio.Event() for uid in users}
        for uid in users:
            await case.inbox.accept(letter(uid, uid))
        at.worker.wake()
        await eventually(lambda: at.bot.most == 32)
        for gate in at.bot.gates.values():
            gate.set()
        at.worker.wake()
        for uid in users:
            await answered(case, uid, [uid])
        assert at.bot.most == 32


@pytest.mark.parametrize("passing", [StateUnavailable("away"), ConversationBusy("busy"), ClaimLost("taken")])
async def test_what_says_nothing_about_the_message_is_waited_out(passing: ChatFlowError) -> None:
    async with memory_case() as case:
        await case.inbox.accept(letter("u", "m1"))
        await case.inbox.accept(letter("u", "m2"))
        async with office(case, bot=Bot(case, {"m1": [passing] * 20})) as at:
            await answered(case, "u", ["m1", "m2"])
        assert at.pauses_s == [*PAUSES_S, *[PAUSES_S[-1]] * 16]


@pytest.mark.parametrize(
    ("faults", "text"),
    [
        ([InvalidMessage("no")], "failed"),
        ([RuntimeError("a bug")] * ATTEMPTS, "failed"),
        ([Interrupted("a newer one")], "interrupted"),
    ],
)
async def test_a_message_that_fails_again_and_again_is_given_up_and_the_next_one_answered(
    open_case: Open, faults: list[Exception], text: str
) -> None:
    async with open_case(RULES) as case:
        for name in ("m1", "m2"):
            await case.inbox.accept(letter("u", name))
        async with office(case, bot=Bot(case, {"m1": list(faults)})) as at:
            await answered(case, "u", ["failed m1", "m2"])
        assert at.bot.begun == ["m1"] * len(faults) + ["m2"]
        told = (await case.store.outbox("u", "0"))[0].item
        assert isinstance(told, Notice)
        assert told.text == text


async def test_the_webhook_hears_of_each_reply_and_each_failure_once_also_when_the_server_s_answers_are_lost(
    open_case: Open,
) -> None:
    async with open_case(RULES) as case:
        for name in ("m1", "m2", "m3"):
            await case.inbox.accept(letter("u", name))
        bot = Bot(case, {"m2": [InvalidMessage("no")]})
        async with office(case, bot=bot, reader=Lossy(case, {"done", "bury"}), is_told=True) as at:
            await answered(case, "u", ["m1", "failed m2", "m3"])
            lease = Lease(partition("u"), "worker", at.ownership.tokens[partition("u")])
            await eventually_told(case, lease, 3)
        outbox = await case.store.outbox("u", "0")
        read = [await case.hooks.read(lease, one) for one in await case.hooks.waiting(lease, None, 10)]
        now_ms = case.time.at_ms
        expected = [
            Delivery(Hook.MESSAGES, MessageAnswered("u", item.message_id, entry.id, item), now_ms)
            if isinstance(item, Reply)
            else Delivery(Hook.MESSAGES, MessageFailed("u", "m2", item), now_ms, entry.id)
            for entry, item in ((entry, entry.item) for entry in outbox)
        ]
        assert read == expected


async def eventually_told(case: Case, lease: Lease, count: int) -> None:
    async with asyncio.timeout(30):
        while True:
            if len(await case.hooks.waiting(lease, None, 10)) == count:
                return
            await asyncio.sleep(0)


async def test_answers_of_the_server_that_are_lost_cost_no_message(open_case: Open) -> None:
    async with open_case(RULES) as case:
        for name in ("m1", "m2", "m3"):
            await case.inbox.accept(letter("u", name))
        bot = Bot(case, {"m2": [InvalidMessage("no")]})
        reader = Lossy(case, {"left", "take", "begin", "ended", "done", "bury"})
        async with office(case, bot=bot, reader=reader) as at:
            await answered(case, "u", ["m1", "failed m2", "m3"])
            await case.inbox.accept(letter("u", "m4"))
            at.worker.wake()
            await answered(case, "u", ["m1", "failed m2", "m3", "m4"])
        assert not reader.losses
        assert bot.begun.count("m1") == 1


async def test_a_worker_that_hangs_is_replaced_and_says_nothing_later(open_case: Open) -> None:
    async with open_case(RULES) as case:
        gate = asyncio.Event()
        for number in range(4):
            await case.inbox.accept(letter("u", f"m{number}"))
        async with office(case, "ant", Bot(case, gates={"m1": gate})) as hung:
            await eventually(lambda: hung.bot.begun == ["m0", "m1"])
            case.time.advance(max(RULES.partition_lease_ms, RULES.lease_ms) + 1)
            async with office(case, "bee") as other:
                await answered(case, "u", ["m0", "m1", "m2", "m3"])
                assert other.bot.begun[0] == "m1"
                gate.set()
                hung.worker.wake()
                await eventually(lambda: hung.bot.at_once == 0)
            assert await said(case, "u") == ["m0", "m1", "m2", "m3"]
            assert "m2" not in hung.bot.begun


async def test_a_worker_that_stops_finishes_what_it_has_begun_and_leaves_the_rest() -> None:
    async with memory_case() as case:
        gate = asyncio.Event()
        for number in range(3):
            await case.inbox.accept(letter("u", f"m{number}"))
        async with office(case, "ant", Bot(case, gates={"m0": gate})) as at:
            await eventually(lambda: at.bot.begun == ["m0"])
            at.task.cancel()
            await asyncio.sleep(0)
            gate.set()
            await asyncio.gather(at.task, return_exceptions=True)
            await at.ownership.leave()
        assert await said(case, "u") == ["m0"]
        async with office(case, "bee") as other:
            await answered(case, "u", ["m0", "m1", "m2"])
        assert other.bot.begun == ["m1", "m2"]
