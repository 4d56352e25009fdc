"""`WS /v1/ws`: messages, ratings and the user's outbox over one connection, in JSON frames."""

from __future__ import annotations

from starlette.types import Receive, Scope, Send

from chatflow_runtime.errors import ChatFlowError
from chatflow_runtime.metrics import Connection
from chatflow_runtime.web.dispatch import refuse, refused
from chatflow_runtime.web.exchange import given_request_id, new_request_id, query_parameter
from chatflow_runtime.web.origins import Origins
from chatflow_runtime.web.services import Services
from chatflow_runtime.web.session import Session
from chatflow_runtime.web.streams import Drained

SERVICE_RESTART = 1012
"""Close code that tells the client to connect again."""


class WebSocket:
    """The route, as an ASGI application."""

    def __init__(self, services: Services, origins: Origins) -> None:
        self._services = services
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: admit or refuse the handshake, then serve until one side closes."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request_id = given_request_id(headers) or new_request_id()
        await receive()
        try:
            uid = self._admitted(scope, headers)
            with self._services.streams.open(Connection.WEBSOCKET):
                await send({"type": "websocket.accept", "headers": [(b"x-request-id", request_id.encode())]})
                address = self._services.address_of(scope)
                await Session(self._services, uid, address, request_id, send).serve(receive)
        except Drained:
            await send({"type": "websocket.close", "code": SERVICE_RESTART, "reason": "connect again"})
        except ChatFlowError as error:
            await refuse(send, self._services.problems.of(error, request_id))

    def _admitted(self, scope: Scope, headers: dict[bytes, bytes]) -> str:
        """The user; OriginRefused for a page of a foreign origin, the errors of `Gate.admit` and `Caller.named`."""
        origin = headers.get(b"origin")
        if origin is not None and not self._origins.allows(origin.decode("latin-1"), headers):
            raise refused(origin.decode("latin-1"))
        caller = self._services.gate.admit(scope, by_parameter=True)
        return caller.named(query_parameter(scope, "uid"))
