"""The contract of the inbox: messages that are answered later, over the real servers and the in-memory twin."""

from __future__ import annotations

from dataclasses import replace

import pytest
from chatflow_api.names import partition
from chatflow_runtime.domain.reply import Notice
from chatflow_runtime.errors import ConversationBusy, InboxFull, LeaseLost
from chatflow_runtime.ports import Lease, Letter
from tests_runtime.state_cases import RULES, Case, Open

P = partition("u")


def letter(message_id: str, uid: str = "u") -> Letter:
    return Letter(uid, message_id, f"text of {message_id}", 1_790_000_000_000)


async def texts(case: Case, lease: Lease, limit: int = 100) -> list[str]:
    return [taken.message_id for taken in await case.inbox.take(lease, limit)]


async def test_messages_come_out_in_the_order_in_which_they_came_once_each(open_case: Open) -> None:
    async with open_case(RULES) as case:
        sent = [letter(f"m{number}") for number in range(5)]
        assert [(await case.inbox.accept(one)).position for one in sent] == [0, 1, 2, 3, 4]
        lease = await case.lease(P)
        assert list(await case.inbox.left(lease)) == []
        first = await case.inbox.take(lease, 3)
        assert [(taken.uid, taken.message_id, taken.attempts) for taken in first] == [
            ("u", name, 0) for name in ("m0", "m1", "m2")
        ]
        assert [await case.inbox.begin(lease, taken) for taken in first] == sent[:3]
        assert await texts(case, lease) == ["m3", "m4"]
        assert await texts(case, lease) == []
        await case.finish(lease, first[0])
        assert (await case.inbox.accept(letter("m5"))).position == 4
        assert await case.inbox.begin(lease, first[0]) is None


async def test_a_message_whose_reply_is_lost_stays(open_case: Open) -> None:
    async with open_case(RULES) as case:
        await case.inbox.accept(letter("m1"))
        lease = await case.lease(P)
        await case.inbox.left(lease)
        (taken,) = await case.inbox.take(lease, 10)
        assert not await case.inbox.done(lease, taken)
        assert list(await case.inbox.left(lease)) == [taken]
        await case.finish(lease, taken)
        assert list(await case.inbox.left(lease)) == []
        # Its answer was lost on the way.
        assert await case.inbox.done(lease, taken)


async def test_a_message_that_was_answered_is_never_given_up(open_case: Open) -> None:
    async with open_case(RULES) as case:
        await case.inbox.accept(letter("m1"))
        lease = await case.lease(P)
        await case.inbox.left(lease)
        (taken,) = await case.inbox.take(lease, 10)
        committed = await case.answer("m1")
        await case.inbox.bury(lease, taken, "its workers ended", Notice("failed", "sorry", 1, "m1"))
        assert list(await case.store.outbox("u", "0")) == [committed.item]
        assert await case.dead(P) == []
        assert list(await case.inbox.left(lease)) == []


async def test_only_attempts_that_end_their_worker_count(open_case: Open) -> None:
    async with open_case(RULES) as case:
        for name in ("deadly", "beside", "failing"):
            await case.inbox.accept(letter(name))
        old = await case.lease(P, "ant")
        await case.inbox.left(old)
        deadly, beside, failing = await case.inbox.take(old, 10)
        for _ in range(3):
            await case.inbox.begin(old, failing)
            await case.inbox.ended(old, failing)
        for count in range(4):
            assert [(one.message_id, one.attempts) for one in await case.inbox.left(old)] == [
                ("deadly", count),
                ("beside", 0),
                ("failing", 0),
            ]
            # Twice, as when the first answer was lost on its way.
            for _ in range(2):
                await case.inbox.begin(old, deadly)
            case.time.advance(RULES.partition_lease_ms)
            new = await case.lease(P, "bee" if old.worker == "ant" else "ant")
            for attempt in (case.inbox.begin(old, beside), case.inbox.ended(old, deadly)):
                with pytest.raises(LeaseLost):
                    await attempt
            old, deadly = new, (await case.inbox.left(new))[0]
            assert deadly.attempts == count + 1


async def test_a_repetition_is_accepted_as_the_first_was(open_case: Open) -> None:
    async with open_case(RULES) as case:
        earlier = await case.answer("m0")
        accepted = [await case.inbox.accept(letter(name)) for name in ("m1", "m2", "m2", "m1")]
        assert [one.position for one in accepted] == [0, 1, 1, 0]
        assert {one.resume for one in accepted} == {earlier.item.id}
        lease = await case.lease(P)
        await case.inbox.left(lease)
        taken = await case.inbox.take(lease, 10)
        assert [one.message_id for one in taken] == ["m1", "m2"]
        # Answered, and sent once more before or after the inbox has heard of it: the reply is what comes next.
        committed = await case.answer("m1")
        assert await case.inbox.done(lease, taken[0])
        again = await case.inbox.accept(letter("m1"))
        assert (await case.store.outbox("u", again.resume, 1))[0].id == committed.item.id
        assert await texts(case, lease) == []


async def test_a_new_owner_begins_with_what_the_old_one_left(open_case: Open) -> None:
    async with open_case(RULES) as case:
        for number in range(4):
            await case.inbox.accept(letter(f"m{number}"))
        old = await case.lease(P, "ant")
        await case.inbox.left(old)
        taken = await case.inbox.take(old, 3)
        await case.finish(old, taken[0])
        case.time.advance(RULES.partition_lease_ms)
        # Nobody else has come: the old owner goes on.
        await case.finish(old, taken[1])
        new = await case.lease(P, "bee")
        for attempt in (case.inbox.take(old, 1), case.inbox.left(old), case.inbox.done(old, taken[2])):
            with pytest.raises(LeaseLost):
                await attempt
        left = await case.inbox.left(new)
        assert [one.message_id for one in left] == ["m2"]
        assert await case.inbox.left(new) == left
        assert await texts(case, new) == ["m3"]
        await case.finish(new, left[0])
        assert [one.message_id for one in await case.inbox.left(new)] == ["m3"]


async def test_a_message_that_is_given_up_is_kept_and_its_user_told(open_case: Open) -> None:
    async with open_case(RULES) as case:
        await case.inbox.accept(letter("m1"))
        lease = await case.lease(P)
        await case.inbox.left(lease)
        taken = (await case.inbox.take(lease, 1))[0]
        notice = Notice("failed", "sorry", 1, "m1")
        with case.store.watch("u") as watch:
            await case.inbox.bury(lease, taken, "it broke", notice)
            assert await watch.wait(30)
        # Asked for again, as when the first answer was lost on its way.
        await case.inbox.bury(lease, taken, "it broke", notice)
        assert await case.inbox.done(lease, taken)
        assert [entry.item for entry in await case.store.outbox("u", "0")] == [notice]
        assert list(await case.inbox.left(lease)) == []
        # Sent again it is a new message: nothing has answered it.
        assert (await case.inbox.accept(letter("m1"))).position == 0
        assert await texts(case, lease) == ["m1"]


async def test_what_would_wait_for_too_long_is_refused(open_case: Open) -> None:
    async with open_case(replace(RULES, inbox_letters=4, waiters=2)) as case:
        others = [uid for uid in map(str, range(2_000)) if partition(uid) == P][:2]
        for uid in ("u", others[0]):
            for number in range(2):
                await case.inbox.accept(letter(f"m{number}", uid))
            with pytest.raises(ConversationBusy if uid == "u" else InboxFull, match=r"2 messages|4 messages"):
                await case.inbox.accept(letter("m2", uid))
        assert (await case.inbox.accept(letter("m1"))).position == 1
        lease = await case.lease(P)
        await case.inbox.left(lease)
        for taken in await case.inbox.take(lease, 10):
            await case.finish(lease, taken)
        for number in range(2):
            assert (await case.inbox.accept(letter(f"n{number}"))).position == number
