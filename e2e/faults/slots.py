"""A language model that answers so many at once and has the others wait, as a server with a fixed batch does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

FIRST_TOKEN_S = 0.04
ANSWER_S = 0.2


class SlottedModel:
    """Answers by quoting the question. Whoever leaves while waiting takes no slot."""

    def __init__(self, slots: int) -> None:
        self._slots = asyncio.Semaphore(slots)
        self.capacity = slots / ANSWER_S
        """Answers a second."""
        self.answered = 0
        self.base_url = ""

    async def complete(self, request: web.Request) -> web.StreamResponse:
        """One answer in two pieces."""
        question = (await request.json())["messages"][-1]["content"]
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        async with self._slots:
            await asyncio.sleep(FIRST_TOKEN_S)
            await response.write(_chunk("answer: "))
            await asyncio.sleep(ANSWER_S - FIRST_TOKEN_S)
            await response.write(_chunk(question) + _chunk(None) + b"data: [DONE]\n\n")
            self.answered += 1
        await response.write_eof()
        return response


def _chunk(text: str | None) -> bytes:
    choice = {"delta": {"content": text}} if text is not None else {"delta": {}, "finish_reason": "stop"}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


@asynccontextmanager
async def slotted_model(slots: int) -> AsyncIterator[SlottedModel]:
    """Serve it while the context lasts."""
    model = SlottedModel(slots)

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"data": []})

    app = web.Application()
    app.add_routes([web.post("/v1/chat/completions", model.complete), web.get("/v1/models", models)])
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        model.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        yield model
    finally:
        await runner.cleanup()
