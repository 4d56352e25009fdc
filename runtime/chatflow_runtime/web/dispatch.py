"""The ASGI application in front: chat routes by a table look-up, everything else to FastAPI behind it.

A process edge: errors end here, as problems. Middleware would cost more than the routes themselves, so request ids and
CORS are part of the exchange.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from chatflow_runtime.errors import ChatFlowError
from chatflow_runtime.web.exchange import ClientLeft, Exchange, failure_headers, new_request_id
from chatflow_runtime.web.origins import Origins
from chatflow_runtime.web.problems import (
    PROBLEM_STYLE,
    MethodRefused,
    OriginRefused,
    Problem,
    Problems,
    RouteUnknown,
    UpgradeNeeded,
    entry_of,
)

log = structlog.get_logger()

Handler = Callable[[Exchange], Awaitable[None]]
Routes = Mapping[str, tuple[str, Handler]]
"""Path -> (method, handler)."""
REQUEST_ID = "chatflow.request_id"
"""Key of the ASGI scope under which applications behind the fast path find the request id."""


class FastPath:
    """Routes of the chat, in front of another application."""

    def __init__(
        self, routes: Routes, sockets: Mapping[str, ASGIApp], behind: ASGIApp, origins: Origins, problems: Problems
    ) -> None:
        self._routes = routes
        self._sockets = sockets
        self._behind = behind
        self._origins = origins
        self._problems = problems

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        kind = scope["type"]
        if kind == "http":
            exchange = Exchange(scope, receive, send, self._origins, self._problems)
            try:
                route = self._routes.get(scope["path"])
                if route is not None and scope["method"] == route[0]:
                    self._check_origin(exchange)
                    await route[1](exchange)
                else:
                    await self._other(exchange, route)
            except Exception as error:  # noqa: BLE001  The edge: whatever went wrong, the client gets a problem.
                await self._fail(exchange, error)
        elif kind == "websocket":
            await self._sockets.get(scope["path"], self._no_socket)(scope, receive, send)
        else:
            await self._behind(scope, receive, send)

    def _check_origin(self, exchange: Exchange) -> None:
        """A page may send some requests without a preflight: what it cannot read must not take effect either."""
        origin = exchange.headers.get(b"origin")
        if origin is not None and not self._origins.allows(origin.decode("latin-1"), exchange.headers):
            raise refused(origin.decode("latin-1"))

    async def _fail(self, exchange: Exchange, error: Exception) -> None:
        if isinstance(error, ClientLeft):
            return
        if not isinstance(error, ChatFlowError):
            log.error("request_broke", **_fields(exchange), exc_info=error)
            error = ChatFlowError()
        elif entry_of(type(error)).status >= 500:
            log.warning("request_failed", **_fields(exchange), code=error.code, reason=str(error))
        await exchange.fail(error)

    async def _other(self, exchange: Exchange, route: tuple[str, Handler] | None) -> None:
        scope = exchange.scope
        if scope["method"] == "OPTIONS" and b"access-control-request-method" in exchange.headers:
            await self._preflight(exchange)
        elif scope["path"] in self._sockets:
            await self._not_upgraded(exchange)
        elif route is None:
            scope[REQUEST_ID] = exchange.request_id
            await self._behind(scope, exchange.receive, exchange.decorated_send)
        else:
            error = MethodRefused(f"{scope['path']} does not take {scope['method']}; use {route[0]}")
            await exchange.fail(error, [(b"allow", route[0].encode())])

    async def _not_upgraded(self, exchange: Exchange) -> None:
        path, method = exchange.scope["path"], exchange.scope["method"]
        if method == "GET":
            error = UpgradeNeeded(f"{path} is a WebSocket's; connect with a WebSocket client")
            await exchange.fail(error, [(b"upgrade", b"websocket"), (b"connection", b"upgrade")])
        else:
            await exchange.fail(MethodRefused(f"{path} does not take {method}; use GET"), [(b"allow", b"GET")])

    async def _no_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = RouteUnknown(f"there is no WebSocket at {scope['path'][:200]!r}; /docs lists the routes")
        await receive()
        await refuse(send, self._problems.of(error, new_request_id()))

    async def _preflight(self, exchange: Exchange) -> None:
        origin = exchange.headers.get(b"origin", b"").decode("latin-1")
        if not self._origins.allows(origin, exchange.headers):
            raise refused(origin)
        wanted = exchange.headers.get(b"access-control-request-headers", b"content-type")
        await exchange.start(204, self._origins.preflight_headers(wanted))
        await exchange.write(b"", more=False)


async def refuse(send: Send, problem: Problem) -> None:
    """Answer a WebSocket's handshake with a problem instead of 101."""
    headers = [(b"content-type", PROBLEM_STYLE.content_type), (b"x-request-id", problem.request_id.encode())]
    headers += failure_headers(problem)
    await send({"type": "websocket.http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": PROBLEM_STYLE.body(problem)})


def refused(origin: str) -> OriginRefused:
    """The error for a page of an origin that the manifest does not allow."""
    return OriginRefused(
        f"pages of {origin[:300]!r} may not use this chat; add the origin to spec.gateway.allowedOrigins"
    )


def _fields(exchange: Exchange) -> dict[str, str]:
    return {"request_id": exchange.request_id, "route": exchange.scope["path"], "method": exchange.scope["method"]}
