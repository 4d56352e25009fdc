"""Webhooks are told by a worker over the twin and real servers, through a real receiver that fails as it is told."""

from __future__ import annotations

import asyncio
import base64
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence

import pytest
from aiohttp import web
from chatflow_api.names import partition
from chatflow_runtime.domain.deliveries import Delivery, Hook, MessageAnswered, MessageFailed
from chatflow_runtime.domain.reply import Notice
from chatflow_runtime.errors import StateUnavailable
from chatflow_runtime.hook_worker import AT_ONCE, GIVE_UP_MS, LAST_PAUSE_S, HookWorker
from chatflow_runtime.ports import Lease, Letter, Pending
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
from tests_runtime.hook_cases import FLOW, SECRET, telling
from tests_runtime.hook_receiver import Post, receiving
from tests_runtime.state_cases import RULES, Case, Open, memory_case, reply
from tests_runtime.web_clients import eventually

AT_MS = 1_790_000_000_000


async def leave_word(case: Case, *said: tuple[str, str]) -> None:
    """(uid, message id) of messages that were answered, each in a partition whose lease is given up again."""
    for uid, message_id in said:
        lease = await case.lease(partition(uid), "gone")
        await case.inbox.accept(Letter(uid, message_id, "text", AT_MS))
        await case.inbox.left(lease)
        (taken,) = await case.inbox.take(lease, 10)
        told = MessageAnswered(uid, message_id, "5-0", reply(message_id))
        await case.finish(lease, taken, Delivery(Hook.MESSAGES, told, AT_MS))
        await case.leases.free(lease.partition, "gone", lease.token)


def told_of(posts: Sequence[Post], uid: str) -> list[str]:
    """Message ids of what came about a user, in order."""
    return [post.json["data"]["message_id"] for post in posts if post.json["data"]["uid"] == uid]


def is_signed(post: Post, secret: str) -> bool:
    """Whether a post passes the verification of the specification's own library."""
    try:
        Webhook(secret).verify(post.body, post.headers)
    except WebhookVerificationError:
        return False
    return True


async def test_a_reply_is_told_signed_in_the_form_of_the_outbox(open_case: Open) -> None:
    other = f"whsec_{base64.b64encode(b'another key of 24 bytes!').decode()}"
    async with open_case(RULES) as case, receiving() as receiver:
        # The library looks at the machine's clock.
        case.time.at_ms = time.time_ns() // 1_000_000
        await leave_word(case, ("u", "m1"))
        urls = {Hook.MESSAGES: f"{receiver.url}/hook?token=1"}
        async with telling(case, urls, secret=f"{other}\n{SECRET}") as at:
            await receiver.until(lambda posts: len(posts) == 1)
            await eventually(lambda: at.count("delivered") == 1)
        (post,) = receiver.posts
        assert post.path == "/hook?token=1"
        assert post.headers["content-type"] == "application/json"
        assert post.headers["webhook-timestamp"] == str(case.time.at_ms // 1000)
        assert post.id.startswith(f"{FLOW}.{partition('u')}.")
        assert [is_signed(post, secret) for secret in (SECRET, other, "whsec_YWJj")] == [True, True, False]
        assert post.json["type"] == "message.answered"
        assert post.json["timestamp"] == "2026-09-21T14:13:20Z"
        data = post.json["data"]
        assert {name: data[name] for name in ("uid", "message_id", "id")} == {
            "uid": "u",
            "message_id": "m1",
            "id": "5-0",
        }
        assert (data["reply"]["id"], data["reply"]["text"], data["reply"]["citations"]) == ("5-0", "reply to m1", [])


async def test_a_failure_is_told_with_its_notice() -> None:
    async with memory_case() as case, receiving() as receiver:
        lease = await case.lease(partition("u"), "gone")
        await case.inbox.accept(Letter("u", "m1", "text", AT_MS))
        await case.inbox.left(lease)
        (taken,) = await case.inbox.take(lease, 1)
        notice = Notice("failed", "sorry", AT_MS, "m1")
        failed = Delivery(Hook.MESSAGES, MessageFailed("u", "m1", notice), AT_MS)
        await case.inbox.bury(lease, taken, "why", notice, failed)
        await case.leases.free(lease.partition, "gone", lease.token)
        (entry,) = await case.store.outbox("u", "0")
        async with telling(case, {Hook.MESSAGES: receiver.url}):
            await receiver.until(lambda posts: len(posts) == 1)
        notice_sent = {
            "id": entry.id,
            "kind": "failed",
            "text": "sorry",
            "at_ms": AT_MS,
            "message_id": "m1",
            "agent": None,
        }
        assert receiver.posts[0].json["type"] == "message.failed"
        assert receiver.posts[0].json["data"] == {
            "uid": "u",
            "message_id": "m1",
            "id": entry.id,
            "notice": notice_sent,
        }


@pytest.mark.parametrize("status", [500, 429, 404, 302])
async def test_what_is_not_taken_is_told_again_under_the_same_id_and_the_next_one_waits(
    open_case: Open, status: int
) -> None:
    async with open_case(RULES) as case, receiving() as receiver:
        receiver.fail_first(3, status)
        await leave_word(case, ("u", "m1"), ("u", "m2"))
        async with telling(case, {Hook.MESSAGES: receiver.url}) as at:
            await receiver.until(lambda posts: len(posts) == 5)
            await eventually(lambda: at.count("delivered") == 2)
            assert at.pauses_s == [1.0, 2.0, 4.0]
            assert at.count("failed") == 3
        assert told_of(receiver.posts, "u") == ["m1", "m1", "m1", "m1", "m2"]
        first, *again, second = receiver.posts
        assert {post.id for post in again} == {first.id} != {second.id}
        assert {post.body for post in again} == {first.body}


async def test_a_receiver_that_is_well_again_is_told_at_once_of_all_that_waits() -> None:
    async with memory_case() as case, receiving() as receiver:
        receiver.fail_first(3, 503)
        users = ("u", "v", "w")
        await leave_word(case, *((uid, "m1") for uid in users))
        async with telling(case, {Hook.MESSAGES: receiver.url}, are_pauses_skipped=False) as at:
            await eventually(lambda: len(at.pauses_s) == 3)
            lease = Lease(partition("x"), "worker", at.ownership.tokens[partition("x")])
            await case.inbox.accept(Letter("x", "m1", "text", AT_MS))
            await case.inbox.left(lease)
            (taken,) = await case.inbox.take(lease, 1)
            told = MessageAnswered("x", "m1", "5-0", reply("m1"))
            await case.finish(lease, taken, Delivery(Hook.MESSAGES, told, AT_MS))
            at.worker.wake(lease.partition)
            await eventually(lambda: at.count("delivered") == 4)
        assert all(told_of(receiver.posts, uid) == ["m1", "m1"] for uid in users)


async def test_pauses_grow_up_to_a_bound() -> None:
    async with memory_case() as case, receiving() as receiver:
        receiver.fail_first(14, 503)
        await leave_word(case, ("u", "m1"))
        async with telling(case, {Hook.MESSAGES: receiver.url}) as at:
            await receiver.until(lambda posts: len(posts) == 15)
        assert at.pauses_s == [min(LAST_PAUSE_S, 2.0**number) for number in range(14)]


async def test_an_address_where_nobody_listens_fails_and_is_tried_again() -> None:
    async with memory_case() as case:
        async with receiving() as receiver:
            url = receiver.url
        await leave_word(case, ("u", "m1"))
        async with telling(case, {Hook.MESSAGES: url}) as at:
            await eventually(lambda: at.count("failed") >= 3)
        assert at.count("dead") == 0


async def test_a_receiver_that_hangs_is_given_up_for_now_after_the_timeout() -> None:
    async with memory_case() as case, receiving() as receiver:
        hung = asyncio.Event()

        async def answer(_: Post) -> web.StreamResponse:
            if len(receiver.posts) == 1:
                await hung.wait()
            return web.Response()

        receiver.answer = answer
        await leave_word(case, ("u", "m1"))
        async with telling(case, {Hook.MESSAGES: receiver.url}, timeout_s=0.2) as at:
            await receiver.until(lambda posts: len(posts) == 2)
            await eventually(lambda: at.count("delivered") == 1)
        assert at.pauses_s == [1.0]


async def test_a_conversation_whose_deliveries_fail_holds_up_no_other(open_case: Open) -> None:
    async with open_case(RULES) as case, receiving() as receiver:
        # In the same partition: the failing one stands first in the stream.
        other = next(uid for uid in map(str, range(10_000)) if partition(uid) == partition("u"))

        async def answer(post: Post) -> web.StreamResponse:
            return web.Response(status=500 if post.json["data"]["uid"] == "u" else 200)

        receiver.answer = answer
        await leave_word(case, ("u", "m1"), *((other, f"m{number}") for number in range(30)))
        async with telling(case, {Hook.MESSAGES: receiver.url}) as at:
            await eventually(lambda: at.count("delivered") == 30)
            await eventually(lambda: at.count("failed") >= 3)
        assert told_of(receiver.posts, other) == [f"m{number}" for number in range(30)]
        assert set(told_of(receiver.posts, "u")) == {"m1"}


async def test_each_conversation_is_told_of_in_its_order_many_at_once_and_not_too_many(open_case: Open) -> None:
    async with open_case(RULES) as case, receiving() as receiver:
        users = [f"user-{number}" for number in range(2 * AT_ONCE)]
        said = [(uid, f"m{number}") for number in range(3) for uid in users]
        await leave_word(case, *said)
        at_once, most = defaultdict[str, int](int), 0
        full = asyncio.Event()

        async def answer(post: Post) -> web.StreamResponse:
            nonlocal most
            at_once[post.id] += 1
            most = max(most, sum(at_once.values()))
            if most == AT_ONCE:
                full.set()
            await full.wait()
            at_once[post.id] -= 1
            return web.Response()

        receiver.answer = answer
        async with telling(case, {Hook.MESSAGES: receiver.url}) as at:
            await eventually(lambda: at.count("delivered") == len(said))
        assert most == AT_ONCE
        assert all(told_of(receiver.posts, uid) == ["m0", "m1", "m2"] for uid in users)


async def test_a_worker_that_ends_between_telling_and_noting_it_is_followed_by_the_same_id(open_case: Open) -> None:
    async with open_case(RULES) as case, receiving() as receiver:
        await leave_word(case, ("u", "m1"))
        async with telling(case, {Hook.MESSAGES: receiver.url}, "ant", reader=_Unheard(case)) as ant:
            await receiver.until(lambda posts: len(posts) == 1)
            # It knows no more of the delivery than the dead do: its note never arrived, and it is not heard of again.
            ant.task.cancel()
            await asyncio.gather(ant.task, return_exceptions=True)
        case.time.advance(RULES.partition_lease_ms)
        async with telling(case, {Hook.MESSAGES: receiver.url}, "bee") as bee:
            await receiver.until(lambda posts: len(posts) >= 2)
            await eventually(lambda: bee.count("delivered") == 1)
        assert len({post.id for post in receiver.posts}) == 1
        assert len({post.body for post in receiver.posts}) == 1


class _Unheard:
    """The case's reader, whose notes of what was told never arrive."""

    def __init__(self, case: Case) -> None:
        self._case = case

    async def waiting(self, lease: Lease, after: str | None, limit: int) -> Sequence[Pending]:
        return await self._case.hooks.waiting(lease, after, limit)

    async def read(self, lease: Lease, pending: Pending) -> Delivery | None:
        return await self._case.hooks.read(lease, pending)

    async def sent(self, lease: Lease, pending: Pending, why: str | None = None) -> None:
        raise StateUnavailable(f"no answer about {pending.entry} in {lease.partition} ({why})")


async def test_a_worker_that_lost_its_partition_says_nothing_further(open_case: Open) -> None:
    async with open_case(RULES) as case, receiving() as receiver:
        gate = asyncio.Event()

        async def answer(_: Post) -> web.StreamResponse:
            if len(receiver.posts) == 1:
                await gate.wait()
            return web.Response()

        receiver.answer = answer
        await leave_word(case, ("u", "m1"), ("u", "m2"))
        async with telling(case, {Hook.MESSAGES: receiver.url}, "ant") as ant:
            await receiver.until(lambda posts: len(posts) == 1)
            case.time.advance(RULES.partition_lease_ms + 1)
            async with telling(case, {Hook.MESSAGES: receiver.url}, "bee") as bee:
                await eventually(lambda: bee.count("delivered") == 2)
                gate.set()
                ant.worker.wake()
                await ant.ownership.refresh()
            assert ant.count("delivered") == 0
        assert told_of(receiver.posts, "u") == ["m1", "m1", "m2"]


async def test_410_is_the_end_of_a_delivery(open_case: Open) -> None:
    async with open_case(RULES) as case, receiving() as receiver:
        receiver.fail_first(1, 410)
        await leave_word(case, ("u", "m1"), ("u", "m2"))
        async with telling(case, {Hook.MESSAGES: receiver.url}) as at:
            await eventually(lambda: (at.count("dead"), at.count("delivered")) == (1, 1))
        assert told_of(receiver.posts, "u") == ["m1", "m2"]
        (why,) = await case.dead(partition("u"))
        assert "410" in why
        assert at.pauses_s == []


async def test_what_is_not_taken_for_a_day_is_given_up() -> None:
    async with memory_case() as case, receiving() as receiver:
        receiver.fail_first(1000)
        await leave_word(case, ("u", "m1"))
        waits_ms = iter((GIVE_UP_MS, 1))

        def on_pause(seconds: float) -> None:
            assert seconds
            case.time.advance(next(waits_ms))

        async with telling(case, {Hook.MESSAGES: receiver.url}, on_pause=on_pause) as at:
            await eventually(lambda: at.count("dead") == 1)
            assert at.count("failed") == len(receiver.posts) == 3
        (why,) = await case.dead(partition("u"))
        assert "status 500" in why


async def test_what_no_webhook_is_there_for_any_longer_is_given_up() -> None:
    async with memory_case() as case:
        await leave_word(case, ("u", "m1"))
        async with telling(case, {}) as at:
            await eventually(lambda: at.count("dead") == 1)
        assert await case.dead(partition("u")) == ["the flow has no such webhook any longer"]


async def test_redirects_are_not_followed() -> None:
    async with memory_case() as case, receiving() as receiver, receiving() as elsewhere:

        async def answer(_: Post) -> web.StreamResponse:
            if len(receiver.posts) > 1:
                return web.Response()
            return web.Response(status=307, headers={"Location": elsewhere.url})

        receiver.answer = answer
        await leave_word(case, ("u", "m1"))
        async with telling(case, {Hook.MESSAGES: receiver.url}) as at:
            await eventually(lambda: at.count("delivered") == 1)
        assert not elsewhere.posts


async def test_news_is_told_at_once_and_a_lost_wake_up_costs_time_alone(open_case: Open) -> None:
    async with (
        open_case(RULES) as case,
        receiving() as receiver,
        telling(case, {Hook.MESSAGES: receiver.url}) as at,
    ):
        lease = Lease(partition("u"), "worker", at.ownership.tokens[partition("u")])
        for name in ("m1", "m2"):
            await case.inbox.accept(Letter("u", name, "text", AT_MS))
        await case.inbox.left(lease)
        for taken in await case.inbox.take(lease, 10):
            told = MessageAnswered("u", taken.message_id, "5-0", reply("m"))
            await case.finish(lease, taken, Delivery(Hook.MESSAGES, told, AT_MS))
            if taken.message_id == "m1":
                at.worker.wake(lease.partition)
        await receiver.until(lambda posts: told_of(posts, "u") == ["m1", "m2"])


async def test_the_receiver_s_answers_are_not_read() -> None:
    async with memory_case() as case, receiving() as receiver:
        endless = asyncio.Event()

        async def answer(post: Post) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(post.request)
            await endless.wait()
            return response

        receiver.answer = answer
        await leave_word(case, ("u", "m1"))
        async with telling(case, {Hook.MESSAGES: receiver.url}) as at:
            await eventually(lambda: at.count("delivered") == 1)


class _Overtaken(_Unheard):
    """The case's reader; while it looks into one partition for the first time, there is something new in it."""

    def __init__(self, case: Case, news: Callable[[Lease], Awaitable[None]]) -> None:
        super().__init__(case)
        self._news = news
        self.asked: list[int] = []

    async def waiting(self, lease: Lease, after: str | None, limit: int) -> Sequence[Pending]:
        found = await super().waiting(lease, after, limit)
        self.asked.append(lease.partition)
        if self.asked.count(partition("u")) == 1 and lease.partition == partition("u"):
            await self._news(lease)
        return found

    async def sent(self, lease: Lease, pending: Pending, why: str | None = None) -> None:
        await self._case.hooks.sent(lease, pending, why)


async def test_what_comes_while_a_stream_is_looked_into_is_told_without_waiting_for_the_next_round() -> None:
    async with memory_case() as case, receiving() as receiver:
        workers: list[HookWorker] = []

        async def news(lease: Lease) -> None:
            await case.inbox.accept(Letter("u", "m1", "text", AT_MS))
            await case.inbox.left(lease)
            (taken,) = await case.inbox.take(lease, 1)
            told = MessageAnswered("u", "m1", "5-0", reply("m1"))
            await case.finish(lease, taken, Delivery(Hook.MESSAGES, told, AT_MS))
            workers[0].wake(lease.partition)

        reader = _Overtaken(case, news)
        async with telling(case, {Hook.MESSAGES: receiver.url}, reader=reader) as at:
            workers.append(at.worker)
            await receiver.until(lambda posts: len(posts) == 1)
            assert [reader.asked.count(number) for number in (partition("u"), partition("v"))] == [2, 1]
