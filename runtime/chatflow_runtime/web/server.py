"""How the gateway's applications are served: uvicorn on uvloop and httptools, WebSockets without per-message deflate.

Used by `bootstrap`, and by the tests, so that they talk to what runs in production.
"""

from __future__ import annotations

import uvicorn
from starlette.types import ASGIApp

from chatflow_runtime.web.connection import HttpConnection
from chatflow_runtime.web.socket_connection import SocketConnection

MAX_FRAME_BYTES = 256 * 1024
"""Longest WebSocket frame: the longest text that a manifest can allow, every character escaped."""
KEEP_ALIVE_S = 75
"""An idle connection is kept this long, longer than proxies in front keep theirs (60 s as a rule)."""


def server_config(app: ASGIApp, host: str, port: int, *, drain_s: int = 30, backlog: int = 2048) -> uvicorn.Config:
    """uvicorn's settings for a gateway or admin application.

    uvicorn's own logs stay at warnings: its access lines would hold user ids. `drain_s`: how long turns under way may
    take once the server is told to stop.
    """
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http=HttpConnection,
        ws=SocketConnection,
        ws_max_size=MAX_FRAME_BYTES,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        # Nothing asks for the client's address or scheme.
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=drain_s,
        backlog=backlog,
    )
