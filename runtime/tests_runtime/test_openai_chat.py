"""The language-model client, against a scripted server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator

import aiohttp
import openai
import pytest
from aiohttp import web
from chatflow_api.runtime_config import LanguageModelConfig
from chatflow_runtime.adapters.event_stream import MAX_EVENT_BYTES
from chatflow_runtime.adapters.http_session import open_session
from chatflow_runtime.adapters.openai_chat import OpenAIChat
from chatflow_runtime.domain.prompt import ChatMessage
from chatflow_runtime.domain.reply import Usage
from chatflow_runtime.errors import (
    AnswerTooLong,
    FirstTokenLate,
    ModelAbsent,
    ModelError,
    ModelUnavailable,
    TokenGapTooLong,
)
from chatflow_runtime.ports import Delta
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming
from pydantic import TypeAdapter
from tests_runtime.scripted_openai import (
    Break,
    Hold,
    Pause,
    Say,
    Script,
    ScriptedOpenAI,
    Send,
    fails,
    says,
    scripted_openai,
)

KEY = "sk-test-0123456789"
PROMPT = [ChatMessage("system", "You are a clerk."), ChatMessage("user", "我的包裹到哪了？")]


@pytest.fixture
async def server() -> AsyncIterator[ScriptedOpenAI]:
    async with scripted_openai() as running:
        yield running


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session() as opened:
        yield opened


def _model(
    session: aiohttp.ClientSession,
    base_url: str,
    first_token_s: float = 30.0,
    gap_s: float = 30.0,
    answer_s: float = 60.0,
    keeps_connections: bool | None = None,
) -> OpenAIChat:
    config = LanguageModelConfig(
        base_url=base_url,
        model="qwen2.5-7b",
        api_key="llm/key",
        first_token_deadline_s=first_token_s,
        token_gap_deadline_s=gap_s,
        answer_deadline_s=answer_s,
        hold_s=0.0,
        may_sleep=False,
        max_tokens=64,
        temperature=0.2,
        context_tokens=1024,
        prompt=None,
    )
    return OpenAIChat(config, session, KEY, "llm", keeps_connections=keeps_connections)


async def _answer(model: OpenAIChat) -> tuple[str, Usage | None]:
    text, usage = "", None
    async for piece in model.stream(PROMPT):
        assert usage is None, "nothing follows the usage"
        if isinstance(piece, Delta):
            assert piece.text
            text += piece.text
        else:
            usage = piece
    return text, usage


async def _error(model: OpenAIChat) -> ModelError:
    with pytest.raises(ModelError) as raised:
        await _answer(model)
    message = str(raised.value)
    assert message.startswith("model 'qwen2.5-7b' at http://")
    assert KEY not in message
    assert "包裹" not in message
    return raised.value


async def test_an_answer_streams_and_its_usage_comes_last(
    server: ScriptedOpenAI, session: aiohttp.ClientSession
) -> None:
    server.scripts.append(says("包裹", "在", "路上[1]。", usage=(31, 4)))
    assert await _answer(_model(session, server.base_url)) == ("包裹在路上[1]。", Usage(31, 4))


async def test_the_request_is_what_the_protocol_asks_for(
    server: ScriptedOpenAI, session: aiohttp.ClientSession
) -> None:
    await _answer(_model(session, server.base_url))
    (request,) = server.requests
    assert request.body == {
        "model": "qwen2.5-7b",
        "messages": [
            {"role": "system", "content": "You are a clerk."},
            {"role": "user", "content": "我的包裹到哪了？"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 64,
        "temperature": 0.2,
    }
    assert request.headers["Authorization"] == f"Bearer {KEY}"
    assert request.headers["Host"] == f"127.0.0.1:{server.port}"
    TypeAdapter(CompletionCreateParamsStreaming).validate_python(request.body)
    assert set(request.body) <= set(CompletionCreateParamsStreaming.__annotations__)


async def test_the_scripted_server_speaks_the_protocol_of_the_official_client(server: ScriptedOpenAI) -> None:
    client = openai.AsyncOpenAI(base_url=server.base_url, api_key=KEY, max_retries=0)
    async with client:
        streamed = await client.chat.completions.create(
            model="scripted",
            messages=[{"role": "user", "content": "hello"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in streamed]
        whole = await client.chat.completions.create(model="scripted", messages=[{"role": "user", "content": "hello"}])
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content == "(scripted) You asked: hello"
    assert chunks[-1].usage is not None


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(says("好", "的", has_usage=False), id="no usage"),
        pytest.param(says("好", "的", has_usage=False, has_done=False), id="no [DONE]"),
        pytest.param(says("好", "的", has_usage=False, has_finish=False), id="no finish_reason"),
        pytest.param(says("好", "的", has_usage=False, has_role=False), id="no role"),
        pytest.param(
            Script(
                (
                    Send(b': keep-alive\n\nevent: x\nid: 1\nretry: 5\ndata: {"choices": []}\n\n'),
                    Send(b'data: {"choices": null, "usage": null}\r\n\r\n'),
                    Send(b'data: {"choices": [{"delta": {"content": null, "reasoning_content": "..."}}]}\r\n\r\n'),
                    Send(b'data: {"choices": [{"delta": {"reasoning": "hm"}, "index": 0}]}\n\n'),
                    Send('data:{"choices":\ndata: [{"delta": {"content": "好"}}]}\n\n'.encode()),
                    Say("的"),
                ),
                has_usage=False,
            ),
            id="comments, fields, nulls, reasoning, several data lines",
        ),
    ],
)
async def test_servers_differ_and_the_answer_is_the_same(
    server: ScriptedOpenAI, session: aiohttp.ClientSession, script: Script
) -> None:
    server.scripts.append(script)
    assert await _answer(_model(session, server.base_url)) == ("好的", None)


async def test_usage_is_waited_for_when_the_answer_is_complete(
    server: ScriptedOpenAI, session: aiohttp.ClientSession
) -> None:
    is_read = asyncio.Event()
    finish = Send(b'data: {"choices": [{"delta": {"content": "!"}, "finish_reason": "stop"}]}\n\n')
    server.scripts.append(Script((Say("ok"), finish, Hold(is_read)), has_finish=False))
    pieces = _model(session, server.base_url).stream(PROMPT)
    text = ""
    while not text.endswith("!"):
        piece = await anext(pieces)
        assert isinstance(piece, Delta)
        text += piece.text
    is_read.set()
    assert [piece async for piece in pieces] == [Usage(11, 7)]


async def test_an_answer_is_whole_when_its_end_never_comes(
    server: ScriptedOpenAI, session: aiohttp.ClientSession
) -> None:
    finish = b'data: {"choices": [{"delta": {}, "finish_reason": "length"}]}\n\n'
    server.scripts.append(Script((Say("好的"), Send(finish), Break())))
    assert await _answer(_model(session, server.base_url)) == ("好的", None)


async def test_pieces_come_as_they_are_said(server: ScriptedOpenAI, session: aiohttp.ClientSession) -> None:
    said = asyncio.Event()
    server.scripts.append(Script((Say("first"), Hold(said), Say(" second"))))
    pieces = _model(session, server.base_url).stream(PROMPT)
    assert await anext(pieces) == Delta("first")
    said.set()
    assert [piece async for piece in pieces] == [Delta(" second"), Usage(11, 7)]


async def test_no_first_token_in_time_is_late(server: ScriptedOpenAI, session: aiohttp.ClientSession) -> None:
    reasoning = Send(b'data: {"choices": [{"delta": {"reasoning_content": "let me think"}}]}\n\n')
    server.scripts.append(Script((reasoning, Hold(asyncio.Event()))))
    error = await _error(_model(session, server.base_url, first_token_s=0.05))
    assert isinstance(error, FirstTokenLate)
    assert "gave no token in 0.05 s" in str(error)
    await server.until(lambda seen: seen.left == 1)


async def test_a_server_that_never_answers_is_late_too(session: aiohttp.ClientSession) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        error = await _error(_model(session, f"http://127.0.0.1:{mute.getsockname()[1]}/v1", first_token_s=0.05))
    assert isinstance(error, FirstTokenLate)


async def test_silence_between_tokens_is_too_long(server: ScriptedOpenAI, session: aiohttp.ClientSession) -> None:
    server.scripts.append(Script((Say("Well"), Hold(asyncio.Event()))))
    pieces = _model(session, server.base_url, gap_s=0.05).stream(PROMPT)
    assert await anext(pieces) == Delta("Well")
    async with asyncio.timeout(10):
        with pytest.raises(TokenGapTooLong, match=r"fell silent for 0\.05 s"):
            await anext(pieces)
    await server.until(lambda seen: seen.left == 1)


async def test_an_answer_that_does_not_end_is_too_long(server: ScriptedOpenAI, session: aiohttp.ClientSession) -> None:
    words = (Say("and so on "), Pause(0.05)) * 1000
    server.scripts.append(Script(words))
    async with asyncio.timeout(20):
        error = await _error(_model(session, server.base_url, answer_s=2.0))
    assert isinstance(error, AnswerTooLong)
    assert "was still answering after 2 s; lower maxTokens, or raise answerDeadline" in str(error)
    await server.until(lambda seen: seen.left == 1)


async def test_the_deadline_of_the_first_token_is_within_that_of_the_answer(
    server: ScriptedOpenAI, session: aiohttp.ClientSession
) -> None:
    server.scripts.append(Script((Hold(asyncio.Event()),)))
    async with asyncio.timeout(10):
        error = await _error(_model(session, server.base_url, answer_s=0.05))
    assert isinstance(error, FirstTokenLate)
    assert "gave no token in 0.05 s" in str(error)


@pytest.mark.parametrize(
    ("status", "is_there"), [pytest.param(status, status < 500, id=str(status)) for status in (200, 401, 404, 500, 503)]
)
async def test_any_answer_below_500_shows_that_a_model_is_there(
    session: aiohttp.ClientSession, status: int, is_there: bool
) -> None:
    seen: list[str | None] = []

    async def models(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization"))
        return web.Response(status=status)

    app = web.Application()
    app.add_routes([web.get("/v1/models", models)])
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        model = _model(session, f"http://127.0.0.1:{runner.addresses[0][1]}/v1")
        if is_there:
            await model.check()
        else:
            with pytest.raises(ModelUnavailable, match=f"answered with status {status}"):
                await model.check()
    finally:
        await runner.cleanup()
    assert seen == [f"Bearer {KEY}"]


async def test_a_server_that_is_away_is_not_there(session: aiohttp.ClientSession) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with pytest.raises(ModelUnavailable, match="cannot be reached"):
        await _model(session, f"http://127.0.0.1:{port}/v1").check()


async def test_closing_the_iterator_closes_the_connection(
    server: ScriptedOpenAI, session: aiohttp.ClientSession
) -> None:
    server.scripts.append(Script((Say("One"), Hold(asyncio.Event()))))
    pieces = _model(session, server.base_url).stream(PROMPT)
    assert await anext(pieces) == Delta("One")
    assert server.left == 0
    await pieces.aclose()
    await server.until(lambda seen: seen.left == 1)


async def test_cancelling_the_turn_closes_the_connection(
    server: ScriptedOpenAI, session: aiohttp.ClientSession
) -> None:
    server.scripts.append(Script((Hold(asyncio.Event()),)))
    turn = asyncio.create_task(_answer(_model(session, server.base_url)))
    await server.until(lambda seen: len(seen.requests) == 1)
    turn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await turn
    await server.until(lambda seen: seen.left == 1)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        pytest.param(
            fails(401, {"message": f"Incorrect API key provided: {KEY}", "type": "auth", "code": "invalid_api_key"}),
            "answered with status 401 (auth, invalid_api_key); check the key",
            id="wrong key",
        ),
        pytest.param(
            fails(400, {"message": "too long: 我的包裹到哪了？", "type": "BadRequestError", "code": 400}),
            "answered with status 400 (BadRequestError); the prompt may exceed the model's context",
            id="prompt too long",
        ),
        pytest.param(fails(429), "answered with status 429 (server_error); the service limits", id="rate limit"),
        pytest.param(Script(status=500, body=b"oops"), "answered with status 500; see that server's log", id="crash"),
        pytest.param(
            Script(status=307, body=b"", headers={"Location": "http://elsewhere/"}),
            "redirects (status 307); write the final address as baseURL",
            id="redirect",
        ),
        pytest.param(
            Script(body=b"<html>hello</html>", content_type="text/html"),
            "answered text/html where a stream was asked for; check that baseURL",
            id="a web page",
        ),
        pytest.param(
            Script(body=b'{"error": {"type": "overloaded"}}', content_type="application/json"),
            "answered application/json (overloaded) where a stream was asked for",
            id="an error with status 200",
        ),
        pytest.param(says(), "finished without a word of answer", id="an empty answer"),
        pytest.param(Script((Break(),)), "broke off before the end of its answer", id="cut off before a token"),
        pytest.param(
            Script((Say("Well"), Break())), "broke off before the end of its answer", id="cut off in the middle"
        ),
        pytest.param(
            says("Well", has_finish=False, has_usage=False, has_done=False),
            "broke off before the end of its answer",
            id="an end without finish_reason or [DONE]",
        ),
        pytest.param(
            Script((Say("Well"), Send(b'data: {"error": {"message": "OOM", "type": "InternalServerError"}}\n\n'))),
            "sent an error (InternalServerError) in the middle of its answer",
            id="an error in the stream",
        ),
        pytest.param(
            Script((Send(b"data: {oops\n\n"),)), "sent a chunk that is not the protocol's JSON", id="bad JSON"
        ),
        pytest.param(
            Script((Send(b"data: " + b"x" * (MAX_EVENT_BYTES + 1)),)), "sent an event of more than", id="endless event"
        ),
    ],
)
async def test_what_goes_wrong_is_told_with_a_remedy(
    server: ScriptedOpenAI, session: aiohttp.ClientSession, script: Script, message: str
) -> None:
    server.scripts.append(script)
    error = await _error(_model(session, server.base_url))
    assert isinstance(error, ModelUnavailable)
    assert message in str(error)


async def test_a_server_that_is_not_there_is_told(session: aiohttp.ClientSession) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    error = await _error(_model(session, f"http://127.0.0.1:{port}/v1"))
    assert isinstance(error, ModelAbsent)
    assert "cannot be reached" in str(error)
    error = await _error(_model(session, "http://no-such-host.invalid/v1"))
    assert isinstance(error, ModelAbsent)
    assert "has a host name that cannot be resolved" in str(error)


@pytest.mark.parametrize(("status", "is_absent"), [(503, True), (500, False), (429, False)])
async def test_a_proxy_without_a_server_behind_it_says_so_by_its_status(
    server: ScriptedOpenAI, session: aiohttp.ClientSession, status: int, is_absent: bool
) -> None:
    server.scripts.append(fails(status))
    error = await _error(_model(session, server.base_url))
    assert isinstance(error, ModelAbsent) is is_absent


async def test_credentials_and_query_of_the_address_stay_out_of_errors(
    server: ScriptedOpenAI, session: aiohttp.ClientSession
) -> None:
    server.scripts.append(fails(500))
    base_url = server.base_url.replace("127.0.0.1", "user:hunter2@127.0.0.1") + "?api-version=1"
    error = await _error(_model(session, base_url))
    assert "hunter2" not in str(error)
    assert "api-version" not in str(error)


@pytest.mark.parametrize(("is_kept", "connections"), [(True, 1), (None, 3)])
async def test_an_answer_has_its_own_connection_unless_they_are_kept(
    server: ScriptedOpenAI, session: aiohttp.ClientSession, is_kept: bool | None, connections: int
) -> None:
    model = _model(session, server.base_url, keeps_connections=is_kept)
    for _ in range(3):
        await _answer(model)
    assert len({request.peer for request in server.requests}) == connections


async def test_a_kept_connection_that_the_server_closes_is_replaced(session: aiohttp.ClientSession) -> None:
    """The first connection answers once, then takes a second request and closes without a word."""
    chunk = json.dumps({"choices": [{"delta": {"content": "ok"}, "finish_reason": "stop"}]})
    body = f"data: {chunk}\n\ndata: [DONE]\n\n"
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: {len(body)}\r\n\r\n"
    requests: list[StreamWriter] = []

    async def serve(reader: StreamReader, writer: StreamWriter) -> None:
        for reply in (head + body, ""):
            with contextlib.suppress(asyncio.IncompleteReadError):
                await reader.readuntil(b"\r\n\r\n")
                requests.append(writer)
            writer.write(reply.encode())
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as running:
        base_url = f"http://127.0.0.1:{running.sockets[0].getsockname()[1]}/v1"
        model = _model(session, base_url, keeps_connections=True)
        assert await _answer(model) == ("ok", None)
        assert await _answer(model) == ("ok", None)
        assert requests == [requests[0], requests[0], requests[2]]
        assert requests[0] is not requests[2]
        running.close()


async def test_an_alias_changes_the_address_but_not_the_request(server: ScriptedOpenAI) -> None:
    async with open_session({"vllm:8000": f"127.0.0.1:{server.port}", "named": f"127.0.0.1:{server.port}"}) as session:
        assert (await _answer(_model(session, "http://vllm:8000/v1")))[1] is not None
        assert (await _answer(_model(session, "http://named/v1")))[1] is not None
        error = await _error(_model(session, "http://vllm:8001/v1"))
    assert [request.headers["Host"] for request in server.requests] == ["vllm:8000", "named"]
    assert "cannot be resolved" in str(error)


async def test_the_session_keeps_no_cookies() -> None:
    seen: list[str | None] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Cookie"))
        return web.Response(headers={"Set-Cookie": "user=a"})

    app = web.Application()
    app.router.add_get("/", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with open_session() as session:
        for _ in range(2):
            await session.get(f"http://localhost:{runner.addresses[0][1]}/")
    await runner.cleanup()
    assert seen == [None, None]
