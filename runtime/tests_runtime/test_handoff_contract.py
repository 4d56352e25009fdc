"""The contract of handoffs: who answers, what is told, what a person may say, over the real servers and the twin."""

from __future__ import annotations

import asyncio

import pytest
from chatflow_api.names import partition
from chatflow_runtime.domain.conversation import Event, Memory, Message, Scene
from chatflow_runtime.domain.deliveries import Delivery, HandoffEnded, HandoffMessage, Hook, Told
from chatflow_runtime.domain.reply import Notice, Origin, Reply, Rung
from chatflow_runtime.errors import ClaimLost, NotHandedOver
from chatflow_runtime.ports import Claimed, Committed, Outcome, Turn, Waiting, Word
from tests_runtime.state_cases import RULES, Case, Open

P = partition("u")
ID = "h-1"


def delivery(message_id: str, handoff: str = ID) -> Delivery:
    message = Message("user", f"text of {message_id}", 1, message_id)
    return Delivery(Hook.HANDOFF, HandoffMessage("u", message), 1, handoff_id=handoff)


def outcome(message_id: str, event: Event, text: str = "", handoff: str = ID) -> Outcome:
    reply = Reply(message_id, text, Rung.L0, Origin.HANDOFF, Scene.HANDOFF)
    return Outcome(event, Memory(slots={"order": "7"}), reply, delivery=delivery(message_id, handoff))


def word(message_id: str, text: str | None = "here I am", *, ends: bool = False, handoff_id: str | None = None) -> Word:
    notice = Notice("returned" if ends else "agent", text or "bye", 5, message_id, "Ann")
    return Word("u", message_id, text, "Ann", notice, ends, handoff_id)


async def hand_over(case: Case, message_id: str = "m1", handoff: str = ID) -> Committed:
    turn = case.turn(message_id)
    claimed = await case.claim(turn)
    return await case.store.commit(
        turn, claimed.conversation, outcome(message_id, Event.HANDED_OVER, "one moment", handoff)
    )


async def relay(case: Case, message_id: str) -> Committed:
    turn = case.turn(message_id)
    claimed = await case.claim(turn)
    assert claimed.conversation.handoff == ID
    return await case.store.commit(turn, claimed.conversation, outcome(message_id, Event.RELAYED))


async def told(case: Case) -> list[tuple[str | None, Told]]:
    """What the desk is to be told: handoff and content."""
    lease = await case.lease(P)
    found = [await case.hooks.read(lease, one) for one in await case.hooks.waiting(lease, None, 100)]
    return [(one.handoff_id, one.told) for one in found if one is not None]


async def test_each_handoff_may_number_its_messages_and_none_ends_another(open_case: Open) -> None:
    async with open_case(RULES) as case:
        kept = []
        for number, handoff in enumerate(("h-1", "h-2")):
            await hand_over(case, f"m{number}", handoff)
            words = [word("1", handoff_id=handoff), word("1", None, ends=True, handoff_id=handoff)]
            kept += [await case.handoffs.speak(one) for one in words]
            assert (await case.handoffs.look("u")).handoff_id is None
            assert [await case.handoffs.speak(one) for one in words] == kept[-2:]
        assert len(set(kept)) == 4
        await hand_over(case, "m3", "h-3")
        # Late: what was heard keeps its answer, what was not is refused.
        assert await case.handoffs.speak(word("1", None, ends=True, handoff_id="h-2")) == kept[-1]
        for late in (word("2", handoff_id="h-2"), word("2", None, ends=True, handoff_id="h-2")):
            with pytest.raises(NotHandedOver, match="'h-2' is over"):
                await case.handoffs.speak(late)
        assert (await case.handoffs.look("u")).handoff_id == "h-3"


async def test_a_handover_moves_the_scene_and_tells_the_desk_in_one_step(open_case: Open) -> None:
    async with open_case(RULES) as case:
        await case.answer("m0")
        assert (await case.handoffs.look("u")).handoff_id is None
        await hand_over(case)
        found = await case.handoffs.look("u")
        assert (found.scene, found.handoff_id) == (Scene.HANDOFF, ID)
        assert [message.text for message in found.history][-2:] == ["text of m1", "one moment"]
        assert await told(case) == [(ID, delivery("m1").told)]


async def test_what_the_user_says_meanwhile_is_kept_and_told_in_order_without_a_reply_in_the_history(
    open_case: Open,
) -> None:
    async with open_case(RULES) as case:
        await hand_over(case)
        for name in ("m2", "m3"):
            await relay(case, name)
        claimed = await case.claim(case.turn("m4"))
        assert claimed.conversation.scene is Scene.HANDOFF
        assert [(message.role, message.text) for message in claimed.conversation.history] == [
            ("user", "text of m1"),
            ("assistant", "one moment"),
            ("user", "text of m2"),
            ("user", "text of m3"),
        ]
        assert [handoff for handoff, _ in await told(case)] == [ID, ID, ID]
        assert [one for _, one in await told(case)] == [delivery(name).told for name in ("m1", "m2", "m3")]


async def test_a_commit_that_is_late_leaves_nothing_for_the_desk(open_case: Open) -> None:
    async with open_case(RULES) as case:
        turn = case.turn("m1")
        claimed = await case.claim(turn)
        case.time.advance(RULES.lease_ms + 1)
        await hand_over(case)
        with pytest.raises(ClaimLost):
            await case.store.commit(turn, claimed.conversation, outcome("m1", Event.HANDED_OVER, "again"))
        assert len(await told(case)) == 1


async def test_a_person_s_words_take_effect_once_in_history_and_outbox(open_case: Open) -> None:
    async with open_case(RULES) as case:
        await hand_over(case)
        with case.store.watch("u") as watch:
            first = await case.handoffs.speak(word("a1"))
            assert await watch.wait(30)
        assert await case.handoffs.speak(word("a1", "other words")) == first
        second = await case.handoffs.speak(word("a2", "more"))
        items = await case.store.outbox("u", "0")
        assert [(entry.id, entry.item) for entry in items[1:]] == [
            (first, Notice("agent", "here I am", 5, "a1", "Ann")),
            (second, Notice("agent", "more", 5, "a2", "Ann")),
        ]
        history = await case.store.history("u")
        assert history[-2:] == (
            Message("assistant", "here I am", 5, "a1", "Ann"),
            Message("assistant", "more", 5, "a2", "Ann"),
        )
        # A user's message of the same id is another message.
        await relay(case, "a1")
        assert len(await told(case)) == 2


@pytest.mark.parametrize("ends", [False, True])
async def test_nobody_speaks_in_a_conversation_that_was_not_handed_over(open_case: Open, ends: bool) -> None:
    async with open_case(RULES) as case:
        with pytest.raises(NotHandedOver):
            await case.handoffs.speak(word("a1", ends=ends))
        await case.answer("m1")
        with pytest.raises(NotHandedOver):
            await case.handoffs.speak(word("a1", ends=ends))
        assert len(await case.store.outbox("u", "0")) == 1


async def test_after_a_return_the_bot_answers_with_what_was_collected_before(open_case: Open) -> None:
    async with open_case(RULES) as case:
        await hand_over(case)
        at = await case.handoffs.speak(word("r1", None, ends=True))
        assert await case.handoffs.speak(word("r1", None, ends=True)) == at
        with pytest.raises(NotHandedOver):
            await case.handoffs.speak(word("a2"))
        claimed = await case.claim(case.turn("m2"))
        conversation = claimed.conversation
        assert (conversation.scene, conversation.handoff, conversation.memory.slots) == (
            Scene.ANSWER,
            None,
            {"order": "7"},
        )
        # The built-in words are a notice, no part of what was said.
        assert [message.text for message in conversation.history] == ["text of m1", "one moment"]
        assert (await case.store.outbox("u", "0"))[-1].item == Notice("returned", "bye", 5, "r1", "Ann")
        assert (await told(case))[1:] == [(ID, HandoffEnded("u", "returned"))]


async def test_a_message_under_way_at_a_return_is_decided_anew_and_at_once(open_case: Open) -> None:
    async with open_case(RULES) as case:
        await hand_over(case)
        turn = case.turn("m2")
        claimed = await case.claim(turn)
        await case.handoffs.speak(word("r1", "over to the bot", ends=True))
        with pytest.raises(ClaimLost):
            await case.store.commit(turn, claimed.conversation, outcome("m2", Event.RELAYED))
        again = case.turn("m2")
        loaded = await case.store.load(again)
        assert isinstance(loaded, Claimed)
        assert loaded.conversation.scene is Scene.ANSWER
        await case.store.commit(again, loaded.conversation, outcome("m2", Event.ANSWERED, "the bot", ""))
        texts = [message.text for message in await case.store.history("u")]
        assert texts == ["text of m1", "one moment", "over to the bot", "text of m2", "the bot"]


async def test_a_message_waits_its_turn_while_another_is_passed_on(open_case: Open) -> None:
    async with open_case(RULES) as case:
        await hand_over(case)
        turn = case.turn("m2")
        claimed = await case.claim(turn)
        assert isinstance(await case.store.load(case.turn("m3")), Waiting)
        await case.store.commit(turn, claimed.conversation, outcome("m2", Event.RELAYED))
        await relay(case, "m3")


async def test_a_silent_user_ends_a_handoff_and_the_desk_is_told_once(open_case: Open) -> None:
    async with open_case(RULES) as case:
        await hand_over(case)
        case.time.advance(RULES.ttl_ms - RULES.notice_ms)
        assert await case.due.sweep(P) == 1
        # A person's word keeps it going.
        await case.handoffs.speak(word("a1"))
        case.time.advance(RULES.notice_ms)
        await case.due.sweep(P)
        assert (await case.handoffs.look("u")).handoff_id == ID
        case.time.advance(RULES.ttl_ms)
        for _ in range(2):
            await case.due.sweep(P)
        found = await case.handoffs.look("u")
        assert (found.scene, found.handoff_id) == (Scene.END, None)
        assert (await told(case))[1:] == [(ID, HandoffEnded("u", "timed_out"))]
        with pytest.raises(NotHandedOver):
            await case.handoffs.speak(word("a2"))
        claimed = await case.claim(case.turn("m9"))
        assert (claimed.conversation.handoff, claimed.conversation.history) == (None, ())


async def test_a_message_that_was_under_way_for_too_long_does_not_bring_an_ended_handoff_back(open_case: Open) -> None:
    async with open_case(RULES) as case:
        await hand_over(case)
        turn = case.turn("m2")
        claimed = await case.claim(turn)
        case.time.advance(RULES.ttl_ms + 1)
        await case.due.sweep(P)
        with pytest.raises(ClaimLost):
            await case.store.commit(turn, claimed.conversation, outcome("m2", Event.RELAYED))
        found = await case.handoffs.look("u")
        assert (found.scene, found.handoff_id) == (Scene.END, None)
        assert [one for _, one in await told(case)] == [delivery("m1").told, HandoffEnded("u", "timed_out")]
        # Another attempt begins anew, with the bot.
        again = await case.claim(case.turn("m2"))
        assert (again.conversation.scene, again.conversation.handoff) == (Scene.GREETING, None)


async def test_until_its_end_is_told_a_handoff_goes_on_past_its_deadline(open_case: Open) -> None:
    async with open_case(RULES) as case:
        await hand_over(case)
        case.time.advance(RULES.ttl_ms + 1)
        await relay(case, "m2")
        await case.due.sweep(P)
        assert (await case.handoffs.look("u")).handoff_id == ID
        assert [one for _, one in await told(case)] == [delivery("m1").told, delivery("m2").told]


async def test_what_is_said_at_once_from_both_sides_is_all_kept(open_case: Open) -> None:
    async with open_case(RULES) as case:
        await hand_over(case)

        async def passed_on(turn: Turn) -> None:
            with case.store.watch("u") as watch:
                while isinstance(loaded := await case.store.load(turn), Waiting):
                    await watch.wait(loaded.retry_ms / 1000)
            assert isinstance(loaded, Claimed)
            await case.store.commit(turn, loaded.conversation, outcome(turn.message_id, Event.RELAYED))

        await asyncio.gather(
            *(passed_on(case.turn(f"m{number}")) for number in range(2, 8)),
            *(case.handoffs.speak(word(f"a{number}", f"word {number}")) for number in range(6)),
        )
        texts = [message.text for message in await case.store.history("u")]
        assert sorted(texts[2:]) == sorted(
            [f"text of m{number}" for number in range(2, 8)] + [f"word {number}" for number in range(6)]
        )
        assert len(await told(case)) == 7
