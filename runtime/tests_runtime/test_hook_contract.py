"""The contract of what webhooks are to be told, over the real servers and the in-memory twin."""

from __future__ import annotations

from dataclasses import replace

import pytest
from chatflow_api.names import partition
from chatflow_runtime.domain.deliveries import Delivery, Hook, MessageAnswered, MessageFailed
from chatflow_runtime.domain.reply import Notice
from chatflow_runtime.errors import LeaseLost
from chatflow_runtime.ports import Lease, Letter, Taken
from tests_runtime.state_cases import RULES, Case, Open, reply

P = partition("u")


def delivery(message_id: str) -> Delivery:
    return Delivery(Hook.MESSAGES, MessageAnswered("u", message_id, "1-1", reply(message_id)), 1_790_000_000_000)


async def told(case: Case, lease: Lease, *message_ids: str) -> list[Taken]:
    """Leave word of messages, by the inbox."""
    for message_id in message_ids:
        await case.inbox.accept(Letter("u", message_id, "text", 1_790_000_000_000))
    await case.inbox.left(lease)
    taken = list(await case.inbox.take(lease, 100))
    for one in taken:
        await case.finish(lease, one, delivery(one.message_id))
    return taken


async def read(case: Case, lease: Lease, after: str | None = None, limit: int = 100) -> list[Delivery | None]:
    return [await case.hooks.read(lease, one) for one in await case.hooks.waiting(lease, after, limit)]


async def test_what_is_to_be_told_waits_in_its_order_until_it_is_told(open_case: Open) -> None:
    async with open_case(RULES) as case:
        lease = await case.lease(P)
        assert await case.hooks.waiting(lease, None, 10) == []
        taken = await told(case, lease, "m1", "m2", "m3")
        await case.inbox.done(lease, taken[0], delivery("m1"))
        waiting = await case.hooks.waiting(lease, None, 100)
        assert [(one.hook, one.uid) for one in waiting] == [(Hook.MESSAGES, "u")] * 3
        assert await read(case, lease) == [delivery("m1"), delivery("m2"), delivery("m3")]
        assert await read(case, lease, waiting[0].entry, 1) == [delivery("m2")]
        await case.hooks.sent(lease, waiting[1])
        await case.hooks.sent(lease, waiting[1])
        assert await read(case, lease) == [delivery("m1"), delivery("m3")]
        assert await case.hooks.read(lease, waiting[1]) is None
        assert await case.dead(P) == []


async def test_only_the_owner_takes_out_and_a_new_one_finds_what_is_left(open_case: Open) -> None:
    async with open_case(RULES) as case:
        old = await case.lease(P, "ant")
        await told(case, old, "m1", "m2")
        first, second = await case.hooks.waiting(old, None, 10)
        await case.hooks.sent(old, first)
        case.time.advance(RULES.partition_lease_ms)
        new = await case.lease(P, "bee")
        for attempt in (
            case.hooks.waiting(old, None, 1),
            case.hooks.sent(old, second),
            case.hooks.sent(old, second, "x"),
        ):
            with pytest.raises(LeaseLost):
                await attempt
        assert await read(case, new) == [delivery("m2")]


async def test_what_is_given_up_is_kept_with_the_reason(open_case: Open) -> None:
    async with open_case(RULES) as case:
        lease = await case.lease(P)
        await told(case, lease, "m1")
        (one,) = await case.hooks.waiting(lease, None, 10)
        await case.hooks.sent(lease, one, "it is gone")
        await case.hooks.sent(lease, one, "it is gone")
        assert await read(case, lease) == []
        assert await case.dead(P) == ["it is gone"]


async def test_with_too_many_the_oldest_gives_way(open_case: Open) -> None:
    async with open_case(replace(RULES, hook_deliveries=2)) as case:
        lease = await case.lease(P)
        await told(case, lease, "m1")
        (first,) = await case.hooks.waiting(lease, None, 10)
        await told(case, lease, "m2", "m3")
        assert await read(case, lease) == [delivery("m2"), delivery("m3")]
        assert await case.hooks.read(lease, first) is None
        assert await case.dead(P) == ["too many wait"]


async def test_a_message_that_is_given_up_is_told_of_with_its_notice_s_outbox_id(open_case: Open) -> None:
    async with open_case(RULES) as case:
        lease = await case.lease(P)
        await case.inbox.accept(Letter("u", "m1", "text", 1))
        await case.inbox.left(lease)
        (taken,) = await case.inbox.take(lease, 1)
        notice = Notice("failed", "sorry", 1, "m1")
        failed = Delivery(Hook.MESSAGES, MessageFailed("u", "m1", notice), 5)
        for _ in range(2):
            await case.inbox.bury(lease, taken, "it broke", notice, failed)
        (entry,) = await case.store.outbox("u", "0")
        (found,) = await read(case, lease)
        assert found == Delivery(Hook.MESSAGES, MessageFailed("u", "m1", notice), 5, entry.id)
