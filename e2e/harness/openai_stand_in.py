"""An OpenAI-compatible server that is slow when it is cold, for scenarios without a language model; runs in a pod from
the runtime's image. Arguments: PORT MODEL COLD.

It takes some seconds to load. The first COLD answers take twenty times as long as later ones. An answer's words say
whether the server was cold when the question came. `GET /metrics` shows what vLLM's would with the planted number of
running requests; `POST /plant?running=N` plants it. `POST /end` ends the process as a crash would.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import Any

from aiohttp import web

LOADING_S, SLOW_S, FAST_S = 5.0, 1.0, 0.05


def main() -> None:
    """Serve until killed."""
    port, model, cold = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    answered = running = 0

    def chunk(delta: dict[str, str], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        body = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": model, "choices": [choice]}
        return b"data: " + json.dumps(body).encode() + b"\n\n"

    async def chat(request: web.Request) -> web.StreamResponse:
        nonlocal answered
        asked: dict[str, Any] = await request.json()
        if asked["model"] != model:
            return web.json_response({"error": {"message": f"no model {asked['model']}"}}, status=404)
        is_cold = answered < cold
        await asyncio.sleep(SLOW_S if is_cold else FAST_S)
        answered += 1
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        for word in ("The server", " was", " cold." if is_cold else " warm."):
            await answer.write(chunk({"content": word}))
        await answer.write(chunk({}, "stop") + b"data: [DONE]\n\n")
        return answer

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": model, "object": "model"}]})

    async def plant(request: web.Request) -> web.Response:
        nonlocal running
        running = int(request.query["running"])
        return web.Response()

    async def metrics(_: web.Request) -> web.Response:
        planted = {"num_requests_running": running, "num_requests_waiting": 0, "kv_cache_usage_perc": 0}
        lines = [f'vllm:{name}{{model_name="{model}",engine="0"}} {value}\n' for name, value in planted.items()]
        return web.Response(text="".join(lines))

    async def end(_: web.Request) -> web.Response:
        os._exit(1)

    app = web.Application()
    app.add_routes(
        [web.post("/v1/chat/completions", chat), web.get("/v1/models", models), web.get("/metrics", metrics)]
    )
    app.add_routes([web.post("/plant", plant), web.post("/end", end)])
    time.sleep(LOADING_S)
    web.run_app(app, port=port, print=None, access_log=None)


if __name__ == "__main__":
    main()
