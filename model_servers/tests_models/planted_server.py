"""An OpenAI-compatible server whose first answers are slow, for the tests of the warm-up; arguments PORT COLD LOG.

The first COLD answers take ten times as long as the later ones, and so do all answers to long prompts. Each request
with the header X-Traffic adds a line to LOG: `cold` or `warm`, as the server was when it came. `POST /plant?status=500`
has it give that status to all that is asked later, 0 ends this.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

SLOW_S, FAST_S = 0.1, 0.01
ROLE = {"role": "assistant", "content": ""}
LONG = 1000
"""Characters of a request."""


class Impatient(web.RequestHandler):
    """A connection that is closed when nothing comes on it for so long."""

    __slots__ = ("_closing", "_idle_s")

    def __init__(self, server: web.Server, idle_s: float) -> None:
        super().__init__(server, loop=asyncio.get_running_loop())
        self._idle_s = idle_s

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count from here."""
        super().connection_made(transport)
        self._closing = asyncio.get_running_loop().call_later(self._idle_s, transport.close)

    def data_received(self, data: bytes) -> None:
        """No longer idle."""
        self._closing.cancel()
        super().data_received(data)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("cold", type=int)
    parser.add_argument("log", type=Path)
    parser.add_argument("--delta", default='{"content": "Hello"}', help="of each answer, as JSON")
    parser.add_argument("--breaks-off", action="store_true", help="an answer has an error in place of its delta")
    parser.add_argument("--loading-s", type=float, default=0, help="it listens, but has status 503 for so long")
    parser.add_argument("--idle-s", type=float, default=3600, help="a connection is closed when nothing comes on it")
    parser.add_argument("--no-metrics", action="store_true", help="it does not tell when it began")
    return parser.parse_args()


def application(given: argparse.Namespace) -> web.Application:
    """Its routes."""
    answered = planted = 0
    began_s, loaded_s = time.time(), time.monotonic() + given.loading_s

    @web.middleware
    async def unwell(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        status = 503 if time.monotonic() < loaded_s else planted
        return web.Response(status=status) if status and request.path != "/plant" else await handler(request)

    async def plant(request: web.Request) -> web.Response:
        nonlocal planted
        planted = int(request.query["status"])
        return web.Response()

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(text=f"process_start_time_seconds {began_s}\n")

    async def chat(request: web.Request) -> web.StreamResponse:
        nonlocal answered
        is_cold = answered < given.cold
        if "X-Traffic" in request.headers:
            with given.log.open("a") as lines:
                lines.write("cold\n" if is_cold else "warm\n")
        await asyncio.sleep(SLOW_S if is_cold or len(await request.text()) > LONG else FAST_S)
        answered += 1
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        first, last = ({"choices": [{"index": 0, "delta": delta}]} for delta in (ROLE, json.loads(given.delta)))
        for chunk in (first, {"error": {"message": "planted"}} if given.breaks_off else last):
            await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        return response

    app = web.Application(middlewares=[unwell])
    app.add_routes([web.post("/v1/chat/completions", chat), web.post("/plant", plant)])
    if not given.no_metrics:
        app.add_routes([web.get("/metrics", metrics)])
    return app


async def main() -> None:
    """Serve until killed."""
    given = arguments()
    runner = web.AppRunner(application(given))
    await runner.setup()
    server = runner.server
    assert server is not None
    listener = await asyncio.get_running_loop().create_server(
        lambda: Impatient(server, given.idle_s), "127.0.0.1", given.port
    )
    await listener.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
