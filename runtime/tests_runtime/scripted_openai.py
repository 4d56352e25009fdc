"""A scripted OpenAI-compatible server: plays answers that tests lay down, and records what it is asked.

No model is behind it. Tests start it by `scripted_openai()`. As a program, `python
runtime/tests_runtime/scripted_openai.py --port 9100`, it answers every question with a text that quotes it, and the
model's name in a request chooses how: see MODELS.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, assert_never

from aiohttp import web

Json = dict[str, Any]


@dataclass(frozen=True)
class Say:
    """One chunk with a piece of the answer."""

    text: str


@dataclass(frozen=True)
class Send:
    """Bytes as they are, in one write."""

    data: bytes


@dataclass(frozen=True)
class Hold:
    """Nothing until the event is set."""

    until: asyncio.Event


@dataclass(frozen=True)
class Pause:
    """Nothing for a while."""

    seconds: float


@dataclass(frozen=True)
class Break:
    """The connection is cut."""


Step = Say | Send | Hold | Pause | Break


@dataclass(frozen=True)
class Script:
    """One answer. The stream begins with a role and ends with finish_reason, usage and [DONE], unless switched off."""

    steps: tuple[Step, ...] = ()
    status: int = 200
    body: bytes | None = None
    """Sent instead of a stream."""
    content_type: str = "text/event-stream"
    headers: Mapping[str, str] = field(default_factory=dict)
    has_role: bool = True
    has_finish: bool = True
    has_usage: bool = True
    has_done: bool = True
    usage: tuple[int, int] = (11, 7)
    """Tokens of prompt and completion."""


def says(*pieces: str, **options: Any) -> Script:
    """A script of pieces of text; options are Script's fields."""
    return Script(tuple(Say(piece) for piece in pieces), **options)


def fails(status: int, error: Json | None = None) -> Script:
    """A script of an error status with OpenAI's error body."""
    body = json.dumps({"error": error or {"message": "scripted", "type": "server_error", "code": None}}).encode()
    return Script(status=status, body=body, content_type="application/json")


@dataclass(frozen=True)
class Request:
    """One request to /chat/completions."""

    headers: Mapping[str, str]
    body: Json
    peer: tuple[str, int]
    """The client's address; two requests of one connection have the same."""

    @property
    def question(self) -> str:
        """The last message."""
        return str(self.body["messages"][-1]["content"])


class ScriptedOpenAI:
    """The server's state: scripts to play in turn, then `default`; what was received."""

    def __init__(self, default: Callable[[Request], Script]) -> None:
        self.default = default
        self.scripts: deque[Script] = deque()
        self.requests: list[Request] = []
        self.left = 0
        """Clients that closed their connection in the middle of an answer."""
        self.port = 0
        self._changed = asyncio.Condition()

    @property
    def base_url(self) -> str:
        """What a client takes for the API's address."""
        return f"http://127.0.0.1:{self.port}/v1"

    async def until(self, is_reached: Callable[[ScriptedOpenAI], bool]) -> None:
        """Wait until something has been received or a client has left."""
        async with self._changed:
            await self._changed.wait_for(lambda: is_reached(self))

    def application(self) -> web.Application:
        """The routes."""
        app = web.Application(client_max_size=16 << 20)
        app.add_routes(
            [
                web.post("/v1/chat/completions", self._complete),
                web.get("/v1/models", self._models),
                web.get("/scripted/requests", self._received),
            ]
        )
        return app

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        peer = request.transport.get_extra_info("peername") if request.transport else ("", 0)
        received = Request(dict(request.headers), body, peer)
        await self._note(lambda: self.requests.append(received))
        script = self.scripts.popleft() if self.scripts else self.default(received)
        if script.body is not None:
            return web.Response(
                status=script.status, body=script.body, content_type=script.content_type, headers=script.headers
            )
        if not body.get("stream"):
            return web.json_response(_completion(script, body))
        try:
            return await _play(script, request, body)
        except (asyncio.CancelledError, ConnectionResetError):
            await self._note(self._count_left)
            raise

    def _count_left(self) -> None:
        self.left += 1

    async def _note(self, change: Callable[[], None]) -> None:
        async with self._changed:
            change()
            self._changed.notify_all()

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": name, "object": "model"} for name in MODELS]})

    async def _received(self, _: web.Request) -> web.Response:
        return web.json_response({"requests": [one.body for one in self.requests], "left": self.left})


async def _play(script: Script, request: web.Request, body: Json) -> web.StreamResponse:
    response = web.StreamResponse(status=script.status, headers={"Content-Type": script.content_type, **script.headers})
    await response.prepare(request)
    if script.has_role:
        await response.write(_chunk(body, {"role": "assistant", "content": ""}))
    for step in script.steps:
        match step:
            case Say(text):
                await response.write(_chunk(body, {"content": text}))
            case Send(data):
                await response.write(data)
            case Hold(until):
                await until.wait()
            case Pause(seconds):
                await asyncio.sleep(seconds)
            case Break():
                if request.transport is not None:
                    request.transport.abort()
                return response
            case _:
                assert_never(step)
    if script.has_finish:
        await response.write(_chunk(body, {}, finish="stop"))
    if script.has_usage and (body.get("stream_options") or {}).get("include_usage"):
        await response.write(_data({**_head(body, "chat.completion.chunk"), "choices": [], "usage": _usage(script)}))
    if script.has_done:
        await response.write(b"data: [DONE]\n\n")
    return response


def _completion(script: Script, body: Json) -> Json:
    text = "".join(step.text for step in script.steps if isinstance(step, Say))
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {**_head(body, "chat.completion"), "choices": [choice], "usage": _usage(script)}


def _chunk(body: Json, delta: Json, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return _data({**_head(body, "chat.completion.chunk"), "choices": [choice]})


def _head(body: Json, kind: str) -> Json:
    return {"id": "chatcmpl-scripted", "object": kind, "created": 1, "model": body.get("model", "scripted")}


def _usage(script: Script) -> Json:
    prompt, completion = script.usage
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _data(content: Json) -> bytes:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n".encode()


PIECE = re.compile(r"\w{1,2}|\W", re.ASCII)


def quoting(request: Request) -> Script:
    """An answer that quotes the question, and cites the first passage of the prompt if there is one."""
    question = request.question.splitlines()[-1][:80]
    system = next((one["content"] for one in request.body["messages"] if one["role"] == "system"), "")
    mark = "[1]" if '<passage number="1">' in system else ""
    is_chinese = re.search("[\u3400-\u9fff]", question) is not None
    text = f"（脚本回答）您问的是：{question}{mark}" if is_chinese else f"(scripted) You asked: {question}{mark}"
    pieces = PIECE.findall(text)
    return says(*pieces, usage=(len(str(request.body["messages"])) // 4, len(pieces)))


MODELS: dict[str, Callable[[Request], Script]] = {
    "scripted": quoting,
    "scripted-silent": lambda _: Script((Pause(3600),), has_role=False),
    "scripted-stalling": lambda _: Script((Say("One moment"), Pause(3600))),
    "scripted-breaking": lambda _: Script((Say("One"), Say(" moment"), Break())),
    "scripted-refusing": lambda _: fails(503),
}
"""Behaviours by model name: answers; says nothing; falls silent; breaks off; refuses."""


def by_model(request: Request) -> Script:
    """The script of the model that the request names."""
    return MODELS.get(str(request.body.get("model")), quoting)(request)


@asynccontextmanager
async def scripted_openai(
    default: Callable[[Request], Script] = by_model, port: int = 0
) -> AsyncIterator[ScriptedOpenAI]:
    """A running server on a port of 127.0.0.1 (a free one for 0)."""
    server = ScriptedOpenAI(default)
    # Handlers are cancelled when their client leaves, so that leaving can be seen.
    runner = web.AppRunner(server.application(), handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        server.port = runner.addresses[0][1]
        yield server
    finally:
        await runner.cleanup()


async def _serve(port: int, first_token_s: float, gap_s: float) -> None:
    def slowed(request: Request) -> Script:
        script = by_model(request)
        steps: list[Step] = [Pause(first_token_s)] if first_token_s else []
        for step in script.steps:
            steps += [step, Pause(gap_s)] if gap_s else [step]
        return replace(script, steps=tuple(steps))

    async with scripted_openai(slowed, port) as server:
        print(f"scripted OpenAI-compatible server on {server.base_url}", flush=True)  # noqa: T201  A program's output.
        await asyncio.Event().wait()


def main() -> None:
    """Run until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=9100)
    parser.add_argument("--first-token-ms", type=float, default=0, help="silence before the first piece")
    parser.add_argument("--token-gap-ms", type=float, default=0, help="silence after each piece")
    given = parser.parse_args()
    try:
        asyncio.run(_serve(given.port, given.first_token_ms / 1000, given.token_gap_ms / 1000))
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()
