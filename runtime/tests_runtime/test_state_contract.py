"""The contract of conversation state, over the real servers and the in-memory twin."""

from __future__ import annotations

from dataclasses import replace

import pytest
from chatflow_api.names import partition
from chatflow_api.v1alpha1 import WhileBusy
from chatflow_runtime.domain.conversation import Conversation, Event, Memory, Message, Scene, next_scene
from chatflow_runtime.domain.reply import Notice
from chatflow_runtime.errors import ClaimLost, InvalidMessage, Overtaken
from chatflow_runtime.ports import Answered, Claimed, RecordKind, Rejected, Wait, Waiting
from chatflow_runtime.state.rules import Rules
from tests_runtime.state_cases import RULES, Open, outcome, record


def busy(policy: WhileBusy) -> Rules:
    return replace(RULES, while_busy=dict.fromkeys(Scene, policy))


async def test_a_turn_is_remembered_by_the_next_one(open_case: Open) -> None:
    async with open_case(RULES) as case:
        first = await case.claim(case.turn("m1", text="订单在哪里？"))
        assert first.conversation == Conversation()
        await case.store.release(case.turn("m1"))
        case.time.advance(RULES.lease_ms)
        memory = Memory(slots={"order": "A1"}, action="track", pending="phone", asked=1)
        turn = case.turn("m1", text="订单在哪里？")
        claimed = await case.claim(turn)
        committed = await case.store.commit(turn, claimed.conversation, outcome(turn, Event.COLLECTED, memory))
        at_ms = case.time.at_ms
        assert committed.revision == 1
        loaded = await case.claim(case.turn("m2"))
        assert loaded.conversation == Conversation(
            scene=Scene.COLLECT,
            revision=1,
            memory=memory,
            history=(Message("user", "订单在哪里？", at_ms, "m1"), Message("assistant", "reply to m1", at_ms, "m1")),
        )
        assert await case.store.history("u") == loaded.conversation.history
        assert list(await case.store.outbox("u", "0")) == [committed.item]


async def test_an_answered_message_gets_its_stored_reply_again(open_case: Open) -> None:
    async with open_case(RULES) as case:
        committed = await case.answer("m1")
        await case.answer("m2")
        assert await case.store.load(case.turn("m1")) == Answered(committed.item)
        assert [message.message_id for message in await case.store.history("u")] == ["m1", "m1", "m2", "m2"]


async def test_a_second_attempt_attaches_and_the_same_attempt_may_load_again(open_case: Open) -> None:
    async with open_case(RULES) as case:
        turn = case.turn("m1")
        claimed = await case.claim(turn)
        case.time.advance(RULES.lease_ms - 400)
        assert await case.store.load(case.turn("m1")) == Waiting(Wait.ATTACHED, 400)
        assert await case.store.load(turn) == claimed
        assert await case.store.load(case.turn("m1")) == Waiting(Wait.ATTACHED, RULES.retry_ms)


async def test_waiting_messages_are_answered_in_the_order_in_which_they_came(open_case: Open) -> None:
    async with open_case(RULES) as case:
        turn = case.turn("m1")
        claimed = await case.claim(turn)
        for message_id in ("m2", "m3", "m4"):
            assert await case.store.load(case.turn(message_id)) == Waiting(Wait.QUEUED, RULES.retry_ms)
        await case.store.commit(turn, claimed.conversation, outcome(turn))
        assert isinstance(await case.store.load(case.turn("m4")), Waiting)
        assert isinstance(await case.store.load(case.turn("m5")), Waiting)
        for message_id in ("m2", "m3", "m4", "m5"):
            await case.answer(message_id)
        asked = [message.message_id for message in await case.store.history("u") if message.role == "user"]
        assert asked == ["m1", "m2", "m3", "m4", "m5"]


async def test_a_waiter_that_does_not_come_back_loses_its_place(open_case: Open) -> None:
    async with open_case(RULES) as case:
        turn = case.turn("m1")
        claimed = await case.claim(turn)
        await case.store.load(case.turn("dead"))
        await case.store.commit(turn, claimed.conversation, outcome(turn))
        case.time.advance(RULES.waiter_ms - 250)
        assert await case.store.load(case.turn("m2")) == Waiting(Wait.QUEUED, 250)
        case.time.advance(250)
        await case.answer("m2")


async def test_too_many_waiters_are_refused_but_those_in_the_queue_keep_their_place(open_case: Open) -> None:
    async with open_case(replace(RULES, waiters=2)) as case:
        await case.answer("m0")
        await case.claim(case.turn("m1"))
        for message_id in ("m2", "m3"):
            assert isinstance(await case.store.load(case.turn(message_id)), Waiting)
        assert await case.store.load(case.turn("m4")) == Rejected(Scene.ANSWER)
        assert isinstance(await case.store.load(case.turn("m3")), Waiting)


async def test_the_reject_policy_refuses_a_second_message_until_the_first_is_done(open_case: Open) -> None:
    async with open_case(busy(WhileBusy.REJECT)) as case:
        turn = case.turn("m1")
        claimed = await case.claim(turn)
        assert await case.store.load(case.turn("m2")) == Rejected(Scene.GREETING)
        await case.store.commit(turn, claimed.conversation, outcome(turn))
        await case.answer("m2")


async def test_the_policy_is_that_of_the_scene(open_case: Open) -> None:
    rules = replace(RULES, while_busy={**dict.fromkeys(Scene, WhileBusy.ENQUEUE), Scene.COLLECT: WhileBusy.REJECT})
    async with open_case(rules) as case:
        await case.answer("m1", event=Event.COLLECTED)
        turn = case.turn("m2")
        claimed = await case.claim(turn)
        assert await case.store.load(case.turn("m3")) == Rejected(Scene.COLLECT)
        await case.store.commit(turn, claimed.conversation, outcome(turn, Event.ANSWERED))
        await case.claim(case.turn("m3"))
        assert isinstance(await case.store.load(case.turn("m4")), Waiting)


async def test_an_interrupted_message_stays_in_the_history_and_its_retry_enters_it_only_once(open_case: Open) -> None:
    async with open_case(busy(WhileBusy.INTERRUPT)) as case:
        old, new = case.turn("m1"), case.turn("m2")
        await case.claim(old)
        with case.store.watch("u") as watch:
            claimed = await case.claim(new)
            assert await watch.wait(30)
        assert [message.text for message in claimed.conversation.history] == ["text of m1"]
        for is_over in (False, True):
            if is_over:
                assert isinstance(await case.store.load(old), Waiting), "an interrupted one must not interrupt in turn"
                await case.store.commit(new, claimed.conversation, outcome(new))
            with pytest.raises(Overtaken):
                await case.store.renew(old)
            with pytest.raises(Overtaken):
                await case.store.commit(old, claimed.conversation, outcome(old))
        await case.answer("m1")
        history = await case.store.history("u")
        assert [(message.role, message.message_id) for message in history] == [
            ("user", "m1"),
            ("user", "m2"),
            ("assistant", "m2"),
            ("assistant", "m1"),
        ]


async def test_a_claim_that_another_message_has_and_did_not_take_is_no_interruption(open_case: Open) -> None:
    async with open_case(busy(WhileBusy.INTERRUPT)) as case:
        turn = case.turn("m2")
        claimed = await case.claim(turn)
        # As a failover does that forgets the one and brings the other back.
        await case.store.release(turn)
        await case.claim(case.turn("m1"))
        for step in (case.store.renew(turn), case.store.commit(turn, claimed.conversation, outcome(turn))):
            with pytest.raises(ClaimLost) as raised:
                await step
            assert not isinstance(raised.value, Overtaken)


async def test_a_commit_without_the_claim_or_at_another_revision_changes_nothing(open_case: Open) -> None:
    async with open_case(RULES) as case:
        await case.answer("m1")
        turn = case.turn("m2")
        claimed = await case.claim(turn)
        before = (await case.store.history("u"), list(await case.store.outbox("u", "0")))
        for lost, revision in ((case.turn("m2"), 1), (case.turn("m3"), 1), (turn, 0), (turn, 2)):
            with pytest.raises(ClaimLost):
                await case.store.commit(
                    lost, Conversation(revision=revision), outcome(lost, Event.ANSWERED, None, record(n=1))
                )
        assert (await case.store.history("u"), list(await case.store.outbox("u", "0"))) == before
        assert not await case.due.records(partition("u"), 10)
        assert (await case.store.commit(turn, claimed.conversation, outcome(turn))).revision == 2


async def test_a_dead_owner_s_message_is_answered_once_by_its_retry(open_case: Open) -> None:
    async with open_case(RULES) as case:
        dead, retry = case.turn("m1"), case.turn("m1")
        lost = await case.claim(dead)
        case.time.advance(RULES.lease_ms - 1)
        assert isinstance(await case.store.load(retry), Waiting)
        case.time.advance(1)
        claimed = await case.claim(retry)
        assert claimed.conversation.history == ()
        with pytest.raises(ClaimLost) as raised:
            await case.store.commit(dead, lost.conversation, outcome(dead))
        assert not isinstance(raised.value, Overtaken), "no newer message did it"
        committed = await case.store.commit(retry, claimed.conversation, outcome(retry))
        assert await case.store.load(case.turn("m1")) == Answered(committed.item)
        assert [message.role for message in await case.store.history("u")] == ["user", "assistant"]


async def test_another_message_after_a_dead_owner_s_keeps_its_text_as_unanswered(open_case: Open) -> None:
    async with open_case(RULES) as case:
        await case.claim(case.turn("m1"))
        case.time.advance(RULES.lease_ms)
        await case.answer("m2")
        retried = case.turn("m1")
        claimed = await case.claim(retried)
        assert [message.message_id for message in claimed.conversation.history] == ["m1", "m2", "m2"]
        await case.store.commit(retried, claimed.conversation, outcome(retried))
        assert [message.message_id for message in await case.store.history("u")] == ["m1", "m2", "m2", "m1"]


async def test_an_unanswered_message_of_an_ended_conversation_enters_the_new_one_s_history(open_case: Open) -> None:
    async with open_case(RULES) as case:
        await case.claim(case.turn("m1"))
        case.time.advance(RULES.lease_ms)
        await case.answer("m2")
        case.time.advance(RULES.ttl_ms)
        await case.answer("m1")
        assert [message.role for message in await case.store.history("u")] == ["user", "assistant"]


async def test_a_message_left_by_a_dead_owner_survives_the_end_of_its_conversation(open_case: Open) -> None:
    async with open_case(RULES) as case:
        await case.answer("m1")
        case.time.advance(RULES.ttl_ms - 1)
        await case.claim(case.turn("m2"))
        case.time.advance(RULES.lease_ms)
        claimed = await case.claim(case.turn("m3"))
        assert [message.message_id for message in claimed.conversation.history] == ["m2"]


async def test_a_renewed_lease_holds_and_a_late_owner_that_nobody_replaced_may_commit(open_case: Open) -> None:
    async with open_case(RULES) as case:
        turn = case.turn("m1")
        claimed = await case.claim(turn)
        case.time.advance(RULES.lease_ms - 1)
        await case.store.renew(turn)
        case.time.advance(RULES.lease_ms - 1)
        assert isinstance(await case.store.load(case.turn("m1")), Waiting)
        case.time.advance(1)
        assert (await case.store.commit(turn, claimed.conversation, outcome(turn))).revision == 1
        with pytest.raises(ClaimLost):
            await case.store.renew(turn)


async def test_a_release_leaves_nothing_and_lets_the_next_one_in(open_case: Open) -> None:
    async with open_case(RULES) as case:
        turn = case.turn("m1")
        await case.claim(turn)
        with case.store.watch("u") as watch:
            await case.store.release(case.turn("m1"))
            assert isinstance(await case.store.load(case.turn("m2")), Waiting), "another's release does nothing"
            await case.store.release(turn)
            assert await watch.wait(30)
        claimed = await case.claim(case.turn("m2"))
        assert claimed.conversation == Conversation()


async def test_every_event_leads_where_the_domain_s_table_says(open_case: Open) -> None:
    paths = {
        Scene.GREETING: (),
        Scene.COLLECT: (Event.COLLECTED,),
        Scene.ANSWER: (Event.ANSWERED,),
        Scene.EVALUATE: (Event.ANSWERED, Event.SATISFIED),
        Scene.HANDOFF: (Event.HANDED_OVER,),
        Scene.END: (Event.ANSWERED, Event.SATISFIED, Event.RATED),
    }
    async with open_case(RULES) as case:
        for scene, path in paths.items():
            for event in Event:
                uid = f"{scene}/{event}"
                for number, step in enumerate(path):
                    await case.answer(f"m{number}", uid, step)
                await case.answer("last", uid, event)
                begun = Scene.GREETING if scene is Scene.END else scene
                reached = next_scene(begun, event)
                loaded = await case.claim(case.turn("next", uid))
                assert loaded.conversation.scene is (Scene.GREETING if reached is Scene.END else reached), uid


async def test_a_rating_that_was_asked_for_ends_the_conversation(open_case: Open) -> None:
    async with open_case(RULES) as case:
        assert await case.store.rate("u", record(kind=RecordKind.RATING, stars=5)) is Scene.GREETING
        await case.answer("m1", event=Event.ANSWERED)
        assert await case.store.rate("u", record(kind=RecordKind.RATING, stars=4)) is Scene.ANSWER
        await case.answer("m2", event=Event.SATISFIED, memory=Memory(slots={"a": "b"}))
        assert await case.store.rate("u", record(kind=RecordKind.RATING, stars=3)) is Scene.END
        kept = await case.due.records(partition("u"), 10)
        assert [(entry.kind, entry.fields) for entry in kept] == [
            (RecordKind.RATING, {"stars": stars}) for stars in (5, 4, 3)
        ]
        case.time.advance(RULES.ttl_ms)
        assert await case.due.sweep(partition("u")) == 0, "an ended conversation is not due"
        afresh = await case.claim(case.turn("m3"))
        assert afresh.conversation == Conversation(revision=2)


async def test_a_silent_user_gets_one_closing_notice_and_then_the_end(open_case: Open) -> None:
    async with open_case(RULES) as case:
        number = partition("u")
        committed = await case.answer("m1", memory=Memory(slots={"a": "b"}))
        case.time.advance(RULES.ttl_ms - RULES.notice_ms - 1)
        assert await case.due.sweep(number) == 0
        with case.store.watch("u") as watch:
            case.time.advance(1)
            assert await case.due.sweep(number) == 1
            assert await watch.wait(30)
            noticed_ms = case.time.at_ms
            assert await case.due.sweep(number) == 0
            case.time.advance(RULES.notice_ms)
            assert await case.due.sweep(number) == 1
            assert await watch.wait(30)
        ended_ms = case.time.at_ms
        case.time.advance(RULES.ttl_ms)
        assert await case.due.sweep(number) == 0
        notices = [entry.item for entry in await case.store.outbox("u", committed.item.id)]
        assert notices == [Notice("closing", "closing 30", noticed_ms), Notice("ended", "ended 0", ended_ms)]
        assert len(await case.store.history("u")) == 2, "until the next message the history can still be read"
        afresh = await case.claim(case.turn("m2"))
        assert afresh.conversation == Conversation(revision=1)
        assert await case.store.history("u") == ()
        assert len(await case.store.outbox("u", "0")) == 3
        assert await case.store.load(case.turn("m1")) == Answered(committed.item)


async def test_a_conversation_past_its_deadline_starts_afresh_even_when_no_worker_ran(open_case: Open) -> None:
    async with open_case(RULES) as case:
        await case.answer("m1", event=Event.HANDED_OVER)
        case.time.advance(RULES.ttl_ms)
        await case.answer("m2")
        assert [message.message_id for message in await case.store.history("u")] == ["m2", "m2"]
        assert await case.due.sweep(partition("u")) == 0


async def test_a_message_between_notice_and_end_keeps_the_conversation(open_case: Open) -> None:
    async with open_case(RULES) as case:
        number = partition("u")
        await case.answer("m1")
        case.time.advance(RULES.ttl_ms - RULES.notice_ms)
        assert await case.due.sweep(number) == 1
        case.time.advance(RULES.notice_ms - 1)
        turn = case.turn("m2")
        claimed = await case.claim(turn)
        case.time.advance(RULES.lease_ms - 1)
        assert await case.due.sweep(number) == 0, "a turn under way is past the deadline, but wins"
        await case.store.commit(turn, claimed.conversation, outcome(turn))
        case.time.advance(RULES.ttl_ms - RULES.notice_ms)
        assert await case.due.sweep(number) == 1, "a second silence gets its own notice"
        texts = [entry.item.text for entry in await case.store.outbox("u", "0")]
        assert texts == ["reply to m1", "closing 30", "reply to m2", "closing 30"]


async def test_a_conversation_whose_owner_died_ends_after_the_lease(open_case: Open) -> None:
    async with open_case(RULES) as case:
        number = partition("u")
        await case.answer("m1")
        case.time.advance(RULES.ttl_ms - 1)
        await case.claim(case.turn("m2"))
        case.time.advance(1)
        assert await case.due.sweep(number) == 0
        case.time.advance(RULES.lease_ms)
        assert await case.due.sweep(number) == 1
        retried = await case.claim(case.turn("m2"))
        assert retried.conversation == Conversation(revision=1)


async def test_a_conversation_begun_again_while_its_predecessor_was_due_still_ends(open_case: Open) -> None:
    async with open_case(RULES) as case:
        number = partition("u")
        await case.answer("m1")
        case.time.advance(RULES.ttl_ms)
        turn = case.turn("m2")
        await case.claim(turn)
        await case.store.release(turn)
        assert await case.due.sweep(number) == 0, "nothing was said yet that could end"
        await case.answer("m2")
        case.time.advance(RULES.ttl_ms - RULES.notice_ms)
        assert await case.due.sweep(number) == 1
        case.time.advance(RULES.notice_ms)
        assert await case.due.sweep(number) == 1


async def test_a_notice_long_before_the_end_is_not_late_the_second_time(open_case: Open) -> None:
    async with open_case(replace(RULES, ttl_ms=10_000, notice_ms=9_000)) as case:
        number = partition("u")
        for message_id in ("m1", "m2"):
            await case.answer(message_id)
            case.time.advance(1_000)
            assert await case.due.sweep(number) == 1, message_id


async def test_a_late_closing_notice_names_the_seconds_that_are_left(open_case: Open) -> None:
    async with open_case(RULES) as case:
        await case.answer("m1")
        case.time.advance(RULES.ttl_ms - 12_300)
        assert await case.due.sweep(partition("u")) == 1
        assert [entry.item.text for entry in await case.store.outbox("u", "0")] == ["reply to m1", "closing 13"]


async def test_without_a_notice_a_conversation_just_ends(open_case: Open) -> None:
    async with open_case(replace(RULES, notice_ms=0)) as case:
        await case.answer("m1")
        case.time.advance(RULES.ttl_ms - 1)
        assert await case.due.sweep(partition("u")) == 0
        case.time.advance(1)
        assert await case.due.sweep(partition("u")) == 1
        assert [entry.item.text for entry in await case.store.outbox("u", "0")] == ["reply to m1", "ended 0"]


async def test_a_sweep_reaches_every_due_user_of_its_partition_and_no_other(open_case: Open) -> None:
    async with open_case(replace(RULES, sweep_users=3)) as case:
        number = partition("u")
        same = [uid for uid in (f"user-{n}" for n in range(3000)) if partition(uid) == number][:8]
        other = next(uid for uid in ("v", "w") if partition(uid) != number)
        for uid in (*same, other):
            await case.answer("m1", uid)
        case.time.advance(RULES.ttl_ms)
        assert await case.due.sweep(number) == len(same)
        assert await case.due.sweep(number) == 0
        assert await case.due.sweep(partition(other)) == 1


async def test_records_are_read_until_they_are_discarded(open_case: Open) -> None:
    async with open_case(RULES) as case:
        turn, number = case.turn("m1"), partition("u")
        claimed = await case.claim(turn)
        unsure = [record(text="退款多久到账", confidence=0.41, intent=None), record(text="?", confidence=0.2)]
        await case.store.commit(turn, claimed.conversation, outcome(turn, Event.ANSWERED, None, *unsure))
        first = await case.due.records(number, 1)
        both = await case.due.records(number, 10)
        assert [entry.fields for entry in both] == [entry.fields for entry in unsure]
        assert list(first) == list(both[:1])
        assert both[0].id
        assert both[0].id != both[1].id
        await case.due.discard(number, first)
        await case.due.discard(number, first)
        assert list(await case.due.records(number, 10)) == list(both[1:])


async def test_an_outbox_is_read_from_any_id_on_and_keeps_its_last_entries(open_case: Open) -> None:
    async with open_case(replace(RULES, outbox_items=4, history_messages=6)) as case:
        items = [(await case.answer(f"m{number}")).item for number in range(7)]
        assert list(await case.store.outbox("u", "0")) == items[3:]
        assert list(await case.store.outbox("u", "0", limit=2)) == items[3:5]
        assert list(await case.store.outbox("u", items[4].id)) == items[5:]
        assert list(await case.store.outbox("u", items[6].id)) == []
        assert [message.message_id for message in await case.store.history("u")] == ["m4", "m4", "m5", "m5", "m6", "m6"]
        assert await case.store.load(case.turn("m3")) == Answered(items[3])
        assert isinstance(await case.store.load(case.turn("m2")), Claimed), "a reply that is gone is not remembered"


async def test_a_message_id_is_remembered_for_as_many_turns_as_the_outbox_is_long(open_case: Open) -> None:
    async with open_case(replace(RULES, outbox_items=8)) as case:
        items = [(await case.answer(f"m{number}")).item for number in range(9)]
        assert await case.store.load(case.turn("m1")) == Answered(items[1])
        assert isinstance(await case.store.load(case.turn("m0")), Claimed)


@pytest.mark.parametrize("after", ["", "x", "-", "1-x", "-1", "1-2-3", str(2**64), "٣", "1" * 60])
async def test_an_event_id_that_is_none_is_refused(open_case: Open, after: str) -> None:
    async with open_case(RULES) as case:
        with pytest.raises(InvalidMessage, match="event id"):
            await case.store.outbox("u", after)


async def test_a_watch_sees_its_own_user_s_news_only(open_case: Open) -> None:
    async with open_case(RULES) as case:
        with case.store.watch("u") as mine, case.store.watch("v") as theirs:
            await mine.wait(0)
            await theirs.wait(0)
            await case.answer("m1", "u")
            assert await mine.wait(30)
            assert not await mine.wait(0)
            assert not await theirs.wait(0)


@pytest.mark.parametrize("uid", ["用户/1", "{a}{b}", "a:b c\n", "'); return 1 --"])
async def test_any_text_may_name_a_user(open_case: Open, uid: str) -> None:
    async with open_case(RULES) as case:
        with case.store.watch(uid) as watch:
            turn = case.turn(uid, uid, text=uid)
            claimed = await case.claim(turn)
            memory = Memory(slots={uid: uid})
            await case.store.commit(turn, claimed.conversation, outcome(turn, Event.ANSWERED, memory))
            assert await watch.wait(30)
        loaded = await case.claim(case.turn("m2", uid))
        assert loaded.conversation.memory.slots == {uid: uid}
        assert loaded.conversation.history[0].text == uid
