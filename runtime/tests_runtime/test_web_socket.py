"""`/v1/ws` of a served gateway, through a WebSocket client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import msgspec
import pytest
from chatflow_runtime.web import session, wire
from tests_runtime.web_clients import eventually, new_user
from tests_runtime.web_gateway import ANSWER, SLOW, Gateway, running_gateway
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin

ANSWER_TEXT = "".join(line for line in ANSWER if isinstance(line, str))


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with running_gateway() as running:
        yield running


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(gateway.base_url) as http:
        yield http


def address(gateway: Gateway, uid: str) -> str:
    return f"ws://127.0.0.1:{gateway.port}/v1/ws?uid={uid}"


async def send(socket: ClientConnection, **frame: object) -> None:
    await socket.send(msgspec.json.encode(frame).decode())


async def receive(socket: ClientConnection) -> Any:
    """The next frame, which must be one that the published type admits."""
    text = await socket.recv()
    msgspec.json.decode(text, type=wire.ServerFrame)
    return msgspec.json.decode(text)


async def next_of(socket: ClientConnection, kind: str) -> Any:
    while True:
        frame = await receive(socket)
        if frame["type"] == kind:
            return frame


async def test_a_conversation_streams_its_deltas_and_each_reply_once(gateway: Gateway) -> None:
    async with connect(address(gateway, new_user())) as socket:
        await send(socket, type="message", message_id="m1", text="你们的吉祥物叫什么")
        frames = [await receive(socket) for _ in range(4)]
        assert [frame["type"] for frame in frames] == ["delta", "delta", "delta", "reply"]
        assert {frame["message_id"] for frame in frames} == {"m1"}
        assert "".join(frame["text"] for frame in frames[:3]) == frames[3]["text"] == ANSWER_TEXT
        await send(socket, type="message", message_id="m2", text="退款多久到账")
        assert (await receive(socket))["message_id"] == "m2"
        await send(socket, type="ping")
        assert await receive(socket) == {"type": "pong"}


async def test_a_message_sent_again_is_answered_again_by_the_stored_reply(gateway: Gateway) -> None:
    async with connect(address(gateway, new_user())) as socket:
        await send(socket, type="message", message_id="m1", text="你好")
        first = await receive(socket)
        await send(socket, type="message", message_id="m1", text="你好")
        assert await receive(socket) == first


async def test_replies_of_other_channels_arrive_too_and_each_once(
    gateway: Gateway, client: aiohttp.ClientSession
) -> None:
    uid = new_user()
    async with connect(address(gateway, uid)) as one, connect(address(gateway, uid)) as other:
        await send(one, type="ping")
        await send(other, type="ping")
        assert [(await receive(one))["type"], (await receive(other))["type"]] == ["pong", "pong"]
        await client.post("/v1/chat", json={"uid": uid, "message_id": "m1", "text": "你好"})
        assert await receive(one) == await receive(other)
        await send(one, type="message", message_id="m2", text="退款多久到账")
        assert await receive(one) == await receive(other)
        for socket in (one, other):
            await send(socket, type="ping")
            assert (await receive(socket))["type"] == "pong"


async def test_a_new_connection_resumes_after_any_id(gateway: Gateway, client: aiohttp.ClientSession) -> None:
    uid = new_user()
    replies = []
    for number in range(3):
        body = {"uid": uid, "message_id": f"m{number}", "text": "你好"}
        async with client.post("/v1/chat", json=body) as response:
            replies.append(await response.json())
    async with connect(address(gateway, uid)) as socket:
        await send(socket, type="resume", last_event_id=replies[0]["id"])
        assert [(await receive(socket))["id"] for _ in range(2)] == [replies[1]["id"], replies[2]["id"]]
        await send(socket, type="resume", last_event_id="0")
        assert (await receive(socket))["id"] == replies[0]["id"]


async def test_a_client_that_leaves_cancels_its_answers(gateway: Gateway) -> None:
    gateway.shop.begun.clear()
    gateway.shop.closed.clear()
    async with connect(address(gateway, new_user())) as socket:
        await send(socket, type="message", message_id="m1", text=SLOW)
        assert (await receive(socket))["type"] == "delta"
    assert await asyncio.to_thread(gateway.shop.closed.wait, 10)
    await eventually(lambda: gateway.sample("chatflow_connections", kind="websocket") == 0)
    await eventually(lambda: gateway.sample("chatflow_turns_in_flight") == 0)


async def test_a_rating_is_kept(gateway: Gateway) -> None:
    async with connect(address(gateway, new_user())) as socket:
        for number, text in enumerate(("退款多久到账", "谢谢，解决了")):
            await send(socket, type="message", message_id=f"m{number}", text=text)
            reply = await next_of(socket, "reply")
        assert reply["rating_scale"] == 5
        await send(socket, type="rating", score=5, message_id="m1")
        assert await receive(socket) == {"type": "rated", "scene": "end"}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        pytest.param("hello", "malformed_request", id="no JSON"),
        pytest.param("[]", "invalid_message", id="no object"),
        pytest.param('{"type": "shout", "text": "x"}', "invalid_message", id="an unknown type"),
        pytest.param('{"type": "message", "text": 1}', "invalid_message", id="no text"),
        pytest.param('{"type": "message", "text": " "}', "invalid_message", id="an empty text"),
        pytest.param('{"type": "message", "text": "x", "message_id": "a b"}', "invalid_message", id="a bad id"),
        pytest.param('{"type": "message", "text": "x", "messageId": "a"}', "invalid_message", id="a misspelt field"),
        pytest.param('{"type": "rating", "score": 9}', "invalid_message", id="above the scale"),
    ],
)
async def test_a_frame_that_does_not_fit_gets_a_problem_and_the_connection_stays(
    gateway: Gateway, text: str, code: str
) -> None:
    async with connect(address(gateway, new_user())) as socket:
        await socket.send(text)
        frame = await receive(socket)
        assert (frame["type"], frame["problem"]["code"]) == ("error", code)
        await socket.send(text.encode())
        assert (await receive(socket))["problem"]["code"] == code
        await send(socket, type="ping")
        assert (await receive(socket))["type"] == "pong"


async def test_a_text_that_is_too_long_names_its_message(gateway: Gateway) -> None:
    async with connect(address(gateway, new_user())) as socket:
        await send(socket, type="message", message_id="m1", text="x" * 501)
        frame = await receive(socket)
        assert (frame["message_id"], frame["problem"]["code"]) == ("m1", "message_too_long")


async def test_one_connection_has_a_bounded_number_of_turns_under_way(gateway: Gateway) -> None:
    async with connect(address(gateway, new_user())) as socket:
        for number in range(session.MAX_TURNS + 1):
            await send(socket, type="message", message_id=f"m{number}", text=SLOW)
        frame = await next_of(socket, "error")
        assert (frame["message_id"], frame["problem"]["code"]) == (f"m{session.MAX_TURNS}", "conversation_busy")


async def test_an_id_to_resume_from_that_is_none_closes_the_connection(gateway: Gateway) -> None:
    async with connect(address(gateway, new_user())) as socket:
        await send(socket, type="resume", last_event_id="9" * 30)
        assert (await receive(socket))["problem"]["code"] == "invalid_message"
        with pytest.raises(ConnectionClosed) as closed:
            await receive(socket)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == session.POLICY_VIOLATION


async def test_draining_finishes_the_turns_under_way_and_then_asks_to_come_back() -> None:
    with running_gateway() as gateway:
        async with connect(address(gateway, "u")) as socket:
            await send(socket, type="message", message_id="m1", text=SLOW)
            assert (await receive(socket))["type"] == "delta"
            gateway.drain()
            gateway.open_gate()
            assert (await next_of(socket, "reply"))["text"] == ANSWER_TEXT
            with pytest.raises(ConnectionClosed) as closed:
                await receive(socket)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012


@pytest.mark.parametrize(
    ("uid", "origin", "status", "code"),
    [
        pytest.param("u", "https://evil.example", 403, "origin_refused", id="a foreign page"),
        pytest.param("u", "https://example.org", 403, "origin_refused", id="the parent of allowed subdomains"),
        pytest.param("u", "https://evil-example.org", 403, "origin_refused", id="a look-alike"),
        pytest.param("u", "null", 403, "origin_refused", id="a page without an origin"),
        pytest.param("", None, 422, "invalid_message", id="nobody"),
        pytest.param("a%20b", None, 422, "invalid_message", id="white space"),
    ],
)
async def test_a_handshake_that_may_not_be_gets_a_problem(
    gateway: Gateway, uid: str, origin: str | None, status: int, code: str
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(address(gateway, uid), origin=None if origin is None else Origin(origin)).__aenter__()
    response = refused.value.response
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    assert msgspec.json.decode(response.body or b"")["code"] == code


@pytest.mark.parametrize(
    "origin", ["https://shop.example.com", "https://help.example.org", "https://a.b.example.org", "own"]
)
async def test_pages_of_allowed_origins_and_own_pages_may_connect(gateway: Gateway, origin: str) -> None:
    page = f"http://127.0.0.1:{gateway.port}" if origin == "own" else origin
    async with connect(address(gateway, new_user()), origin=Origin(page)) as socket:
        await send(socket, type="ping")
        assert (await receive(socket))["type"] == "pong"
