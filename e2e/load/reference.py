"""The reference beside which a turn is measured: Starlette, redis-py with hiredis, one EVALSHA of the same load script.

Started by `bench_smoke` as a process of its own; it classifies, searches and stores nothing else.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import redis.asyncio as redis
import uvicorn
from chatflow_api import names
from chatflow_runtime.domain.conversation import Scene
from chatflow_runtime.state.rules import Rules
from chatflow_runtime.state.scripts import render
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

FLOW = "reference"


def create_app(url: str) -> Starlette:
    """One route that loads a conversation."""
    script = render(Rules(ttl_ms=600_000, notice_ms=30_000, history_messages=20)).load
    client = redis.from_url(url, max_connections=64)

    async def chat(request: Request) -> JSONResponse:
        body = json.loads(await request.body())
        uid, message_id = body["message_id"], body["message_id"]
        number = names.partition(uid)
        keys = (
            names.conversation_key(FLOW, uid),
            names.history_key(FLOW, uid),
            names.replies_key(FLOW, uid),
            names.outbox_key(FLOW, uid),
        )
        channel = names.wake_channel(FLOW, number)
        loaded = await client.evalsha(
            script.sha.decode(), 4, *keys, "", message_id, "owner", body["text"], uid, channel
        )
        return JSONResponse({"scene": Scene(loaded[1].decode()), "origin": "reference"})

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:  # noqa: ARG001  Starlette's signature.
        await client.script_load(script.source)
        yield
        await client.aclose()

    return Starlette(routes=[Route("/v1/chat", chat, methods=["POST"])], lifespan=lifespan)


def main() -> None:
    """Serve on one port."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--redis", required=True)
    options = parser.parse_args()
    app = create_app(options.redis)
    uvicorn.run(
        app, host="127.0.0.1", port=options.port, loop="uvloop", http="httptools", access_log=False, log_level="error"
    )


if __name__ == "__main__":
    main()
