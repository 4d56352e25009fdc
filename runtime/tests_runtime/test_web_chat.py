"""`/v1/chat`, `/v1/events` and `/v1/ratings` of a served gateway, through an HTTP client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import aiohttp
import msgspec
import pytest
from chatflow_api.names import partition
from chatflow_runtime.answering import Counted
from chatflow_runtime.domain.conversation import Scene
from chatflow_runtime.domain.reply import Origin
from chatflow_runtime.domain.texts import texts_for
from chatflow_runtime.inbox_worker import InboxWorker
from chatflow_runtime.metrics import Metrics
from chatflow_runtime.ownership import Ownership
from chatflow_runtime.ports import RecordKind
from chatflow_runtime.web import wire
from chatflow_runtime.web.events import PAGE
from chatflow_runtime.web.problems import Problem
from prometheus_client import CollectorRegistry
from tests_runtime.web_clients import events, eventually, frames, new_user
from tests_runtime.web_gateway import ANSWER, OPEN, REFUND, SLOW, Gateway, running_gateway

ANSWER_TEXT = "".join(line for line in ANSWER if isinstance(line, str))
STREAM = {"accept": "text/event-stream"}


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with running_gateway() as running:
        yield running


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(gateway.base_url) as session:
        yield session


async def say(client: aiohttp.ClientSession, uid: str, text: str, message_id: str | None = None) -> wire.ChatReply:
    body = {"uid": uid, "text": text} | ({} if message_id is None else {"message_id": message_id})
    async with client.post("/v1/chat", json=body) as response:
        assert response.status == 200, await response.text()
        assert response.content_type == "application/json"
        return msgspec.json.decode(await response.read(), type=wire.ChatReply)


async def test_a_message_gets_a_whole_reply_with_its_sources(client: aiohttp.ClientSession) -> None:
    reply = await say(client, new_user(), "退款多久到账", "m1")
    assert (reply.message_id, reply.text, reply.origin, reply.scene) == (
        "m1",
        REFUND.text,
        Origin.KNOWLEDGE,
        Scene.ANSWER,
    )
    assert (reply.intent, reply.confidence) == ("refund", 0.9734)
    assert [(citation.title, citation.url) for citation in reply.citations] == [(REFUND.title, REFUND.url)]


async def test_a_message_sent_twice_takes_effect_once_and_one_without_an_id_each_time(
    client: aiohttp.ClientSession, gateway: Gateway
) -> None:
    uid = new_user()
    assert await say(client, uid, "你好", "m1") == await say(client, uid, "你好", "m1")
    first, second = await say(client, uid, "你好"), await say(client, uid, "你好")
    assert len({first.message_id, second.message_id}) == 2
    assert len(await asyncio.to_thread(gateway.run, gateway.store.history(uid))) == 6


@pytest.fixture
def asleep(gateway: Gateway) -> Iterator[None]:
    gateway.shop.is_asleep = True
    yield
    gateway.shop.is_asleep = False


@pytest.mark.usefixtures("asleep")
async def test_a_busy_reply_while_a_model_wakes_says_when_to_come_back(client: aiohttp.ClientSession) -> None:
    question = "你们的吉祥物叫什么"
    uid, completion = new_user(), {"model": "shop", "messages": [{"role": "user", "content": question}]}
    async with client.post("/v1/chat", json={"uid": uid, "text": question}) as response:
        reply = msgspec.json.decode(await response.read(), type=wire.ChatReply)
        assert (response.status, response.headers["retry-after"]) == (200, "30")
    assert (reply.origin, reply.retry_after_s) == (Origin.STATIC, 30)
    async with client.post("/v1/chat", json={"uid": uid, "text": question}, headers=STREAM) as response:
        assert [event.data["retry_after_s"] async for event in events(response)] == [30]
    async with client.post("/v1/chat/completions", json=completion) as response:
        assert (response.status, response.headers["retry-after"]) == (200, "30")
    async with client.post("/v1/chat", json={"uid": uid, "text": "退款多久到账"}) as response:
        assert "retry-after" not in response.headers


async def test_a_stream_brings_the_deltas_without_ids_and_then_the_reply_with_its_own(
    client: aiohttp.ClientSession,
) -> None:
    body = {"uid": new_user(), "message_id": "m1", "text": "你们的吉祥物叫什么"}
    async with client.post("/v1/chat", json=body, headers=STREAM) as response:
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        *deltas, last = [event async for event in events(response)]
    assert [delta.kind for delta in deltas] == ["delta"] * 3
    assert {delta.id for delta in deltas} == {None}
    assert (last.kind, last.id) == ("reply", last.data["id"])
    assert "".join(delta.data["text"] for delta in deltas) == last.data["text"] == ANSWER_TEXT
    assert last.data["usage"] == {"prompt_tokens": 20, "completion_tokens": 8}


@pytest.mark.parametrize("headers", [pytest.param(STREAM, id="stream"), pytest.param({}, id="json")])
async def test_a_client_that_leaves_cancels_the_answer_and_may_ask_again(
    client: aiohttp.ClientSession, gateway: Gateway, headers: dict[str, str]
) -> None:
    uid, channel = new_user(), "sse" if headers else "rest"
    left = gateway.sample("chatflow_turn_failures_total", channel=channel, code="client_left")
    gateway.shop.begun.clear()
    gateway.shop.closed.clear()
    body = {"uid": uid, "message_id": "m1", "text": SLOW}
    request = asyncio.create_task(client.post("/v1/chat", json=body, headers=headers).__aenter__())
    await asyncio.to_thread(gateway.shop.begun.wait, 10)
    if headers:
        (await request).close()
    else:
        request.cancel()
    assert await asyncio.to_thread(gateway.shop.closed.wait, 10)
    gateway.open_gate()
    assert (await say(client, uid, SLOW, "m1")).text == ANSWER_TEXT
    assert gateway.sample("chatflow_turn_failures_total", channel=channel, code="client_left") == left + 1
    assert gateway.sample("chatflow_turns_in_flight") == 0
    gateway.close_gate()


async def test_a_slow_answer_shows_signs_of_life(client: aiohttp.ClientSession, gateway: Gateway) -> None:
    body = {"uid": new_user(), "message_id": "m1", "text": SLOW}
    async with client.post("/v1/chat", json=body, headers=STREAM) as response:
        seen = frames(response)
        assert [await anext(seen), await anext(seen)][1] == ": still here"
        gateway.open_gate()
        assert any([frame.startswith("event: reply") async for frame in seen])
    gateway.close_gate()


async def test_an_error_before_the_stream_is_a_problem_response(client: aiohttp.ClientSession) -> None:
    body = {"uid": new_user(), "message_id": "m1", "text": "\u200b"}
    async with client.post("/v1/chat", json=body, headers=STREAM) as response:
        assert (response.status, response.content_type) == (422, "application/problem+json")


async def test_events_begin_with_what_is_new_and_resume_after_any_id(client: aiohttp.ClientSession) -> None:
    uid = new_user()
    first = await say(client, uid, "你好", "m1")
    async with client.get("/v1/events", params={"uid": uid}) as live:
        raw = frames(live)
        assert await anext(raw) == "retry: 1000"
        second = await say(client, uid, "退款多久到账", "m2")
        assert f"id: {second.id}" in await anext(raw)
    async with client.get("/v1/events", params={"uid": uid, "last_event_id": "0"}) as all_kept:
        stream = events(all_kept)
        assert [(await anext(stream)).id, (await anext(stream)).id] == [first.id, second.id]
    headers = {"last-event-id": first.id}
    async with client.get("/v1/events", params={"uid": uid, "last_event_id": "0"}, headers=headers) as resumed:
        event = await anext(events(resumed))
        assert (event.kind, event.id, event.data["message_id"]) == ("reply", second.id, "m2")


async def test_a_long_outbox_comes_page_after_page_in_order(client: aiohttp.ClientSession) -> None:
    uid = new_user()
    ids = [(await say(client, uid, "你好", f"m{number}")).id for number in range(PAGE + 5)]
    async with client.get("/v1/events", params={"uid": uid, "last_event_id": "0"}) as response:
        stream = events(response)
        assert [(await anext(stream)).id for _ in ids] == ids
    async with client.get("/v1/events", params={"uid": uid}) as live:
        raw = frames(live)
        await anext(raw)
        newest = await say(client, uid, "你好")
        assert f"id: {newest.id}" in await anext(raw)


async def test_a_silent_stream_of_events_is_kept_alive_and_counted_until_the_client_leaves(
    client: aiohttp.ClientSession, gateway: Gateway
) -> None:
    response = await client.get("/v1/events", params={"uid": new_user()})
    raw = frames(response)
    assert [await anext(raw), await anext(raw)] == ["retry: 1000", ": still here"]
    assert gateway.sample("chatflow_connections", kind="events") == 1
    response.close()
    await eventually(lambda: gateway.sample("chatflow_connections", kind="events") == 0)


async def test_notices_of_the_worker_arrive_as_events() -> None:
    with running_gateway({**OPEN, "state": {"ttl": "600s", "closingNotice": "30s"}}) as gateway:
        async with aiohttp.ClientSession(gateway.base_url) as client:
            uid = new_user()
            replied = await say(client, uid, "你好")
            async with client.get("/v1/events", params={"uid": uid, "last_event_id": replied.id}) as response:
                gateway.ahead_ms = 575_000
                assert await asyncio.to_thread(gateway.run, gateway.store.sweep(partition(uid))) == 1
                event = await anext(events(response))
    assert (event.kind, event.data["kind"], event.data["id"]) == ("notice", "closing", event.id)
    assert event.data["text"].startswith("您已有一段时间没有发言")


@pytest.mark.parametrize(
    "last_id",
    [pytest.param("x", id="no number"), pytest.param("1-2-3", id="too many parts"), pytest.param("9" * 30, id="huge")],
)
async def test_a_last_event_id_that_is_none_is_refused(client: aiohttp.ClientSession, last_id: str) -> None:
    async with client.get("/v1/events", params={"uid": "u", "last_event_id": last_id}) as response:
        assert (response.status, response.content_type) == (422, "application/problem+json")


async def test_draining_ends_open_streams_and_refuses_new_ones() -> None:
    with running_gateway() as gateway:
        async with aiohttp.ClientSession(gateway.base_url) as client:
            async with client.get("/v1/events", params={"uid": "u"}) as response:
                raw = frames(response)
                await anext(raw)
                gateway.drain()
                assert [frame async for frame in raw] == []
            async with client.get("/v1/events", params={"uid": "u"}) as response:
                assert (response.status, (await response.json(content_type=None))["code"]) == (503, "draining")
                assert response.headers["retry-after"] == "1"
            assert (await say(client, "u", "你好")).origin is Origin.DIALOGUE


async def test_a_rating_is_kept_and_ends_the_conversation_that_asked_for_it(
    client: aiohttp.ClientSession, gateway: Gateway
) -> None:
    uid = new_user()
    await say(client, uid, "退款多久到账", "m1")
    asked = await say(client, uid, "谢谢，解决了", "m2")
    assert (asked.scene, asked.rating_scale) == (Scene.EVALUATE, 5)
    rating = {"uid": uid, "score": 4, "comment": "很快，电话13800138000", "message_id": "m2"}
    async with client.post("/v1/ratings", json=rating) as response:
        assert (response.status, await response.json()) == (200, {"scene": "end"})
    records = await asyncio.to_thread(gateway.run, gateway.store.records(partition(uid), 100))
    kept = [record for record in records if record.uid == uid and record.kind is RecordKind.RATING]
    assert [record.fields for record in kept] == [
        {"score": 4, "scale": 5, "message_id": "m2", "comment": "很快，电话[phone]"}
    ]
    assert gateway.sample("chatflow_ratings_total", score="4") == 1


@pytest.mark.parametrize(
    ("rating", "status"),
    [
        pytest.param({"uid": "u", "score": 6}, 422, id="above the scale"),
        pytest.param({"uid": "u", "score": 0}, 422, id="below it"),
        pytest.param({"uid": "u", "score": 4.5}, 422, id="no whole number"),
        pytest.param({"uid": "", "score": 3}, 422, id="nobody"),
        pytest.param({"uid": "u", "score": 3, "comment": "x" * 2001}, 422, id="a novel"),
        pytest.param({"uid": "u", "score": 3, "message_id": "a b"}, 422, id="white space in an id"),
    ],
)
async def test_ratings_that_do_not_fit_are_refused(
    client: aiohttp.ClientSession, rating: dict[str, object], status: int
) -> None:
    async with client.post("/v1/ratings", json=rating) as response:
        assert (response.status, response.content_type) == (status, "application/problem+json")


async def leave(client: aiohttp.ClientSession, uid: str, message_id: str) -> wire.AcceptedMessage:
    async with client.post(
        "/v1/messages", json={"uid": uid, "text": "退款多久到账", "message_id": message_id}
    ) as response:
        assert response.status == 202, await response.text()
        return msgspec.json.decode(await response.read(), type=wire.AcceptedMessage)


async def test_a_message_that_is_left_is_answered_in_the_outbox_from_the_id_that_was_given(
    client: aiohttp.ClientSession, gateway: Gateway
) -> None:
    uid = new_user()
    before = await say(client, uid, "退款多久到账", "m0")
    first, second = await leave(client, uid, "m1"), await leave(client, uid, "m2")
    assert (first.position, second.position) == (0, 1)
    assert first.last_event_id == second.last_event_id == before.id
    assert await leave(client, uid, "m1") == first
    async with (
        gateway_answers(gateway),
        client.get("/v1/events", params={"uid": uid, "last_event_id": before.id}) as stream,
    ):
        found = events(stream)
        assert [(await anext(found)).data["message_id"] for _ in range(2)] == ["m1", "m2"]
    again = await leave(client, uid, "m2")
    async with client.get("/v1/events", params={"uid": uid, "last_event_id": again.last_event_id}) as stream:
        assert (await anext(events(stream))).data["message_id"] == "m2"


@asynccontextmanager
async def gateway_answers(gateway: Gateway) -> AsyncIterator[None]:
    """A worker of the gateway's flow, on the gateway's own event loop."""

    async def work() -> None:
        ownership = Ownership(gateway.leases, "worker", gateway.clock.monotonic_s)
        await ownership.refresh()
        counted = Counted(gateway.runner, Metrics(CollectorRegistry()), gateway.clock)
        await InboxWorker(gateway.inbox, ownership, counted, texts_for(gateway.config), ready).run()

    async def ready() -> None:
        return

    working = gateway.begin(work())
    try:
        yield
    finally:
        working.cancel()


async def test_a_message_that_cannot_be_kept_is_refused_and_told_why(client: aiohttp.ClientSession) -> None:
    uid = new_user()
    for number in range(64):
        await leave(client, uid, f"m{number}")
    for body, status, code in [
        ({"uid": uid, "text": "再问一句"}, 409, "conversation_busy"),
        ({"uid": uid, "text": "长" * 501}, 413, "message_too_long"),
        ({"uid": "", "text": "你好"}, 422, "invalid_message"),
    ]:
        async with client.post("/v1/messages", json=body) as response:
            problem = msgspec.json.decode(await response.read(), type=Problem)
            assert (response.status, problem.code) == (status, code)
