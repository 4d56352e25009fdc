"""The two hot routes as plain ASGI in front of the KServe SDK's application, which serves all others.

The SDK's own way through FastAPI, its data plane and its middleware costs some 400 us a request, several times what a
short text costs the model. Requests that only the SDK understands (CloudEvents, binary inputs) are passed on to it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from chatflow_models.intent.batching import BatchFailed
from chatflow_models.serving import wire
from chatflow_models.serving.service import IntentService, Overloaded

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY_BYTES = 4 * 2**20
_TOO_LARGE = f"the request has more than {MAX_BODY_BYTES} bytes; send fewer texts at once"
BINARY_HEADER = b"inference-header-content-length"
_JSON = (b"content-type", b"application/json")
_BINARY = (b"content-type", b"application/octet-stream")


class _BodyTooLarge(Exception):
    """More bytes than are taken."""


class FastPath:
    """An ASGI application."""

    def __init__(self, app: App, service: IntentService) -> None:
        """`app` is the SDK's."""
        self._app = app
        self._service = service
        self._v1 = f"/v1/models/{service.name}:predict"
        self._v2 = f"/v2/models/{service.name}/infer"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI's entry."""
        if self._is_ours(scope):
            await self._answer(scope["path"] == self._v1, receive, send)
        elif scope["type"] == "http" and scope["method"] == "POST":
            await self._pass_on(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _is_ours(self, scope: Scope) -> bool:
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] not in (self._v1, self._v2):
            return False
        return not any(name == BINARY_HEADER or name.startswith(b"ce-") for name, _ in scope["headers"])

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """To the SDK, which would read a body of any length."""
        try:
            body = await _body(receive)
        except _BodyTooLarge:
            await _refuse(send, 413, _TOO_LARGE)
            return
        if body is None:
            return
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def replayed() -> Message:
            return next(messages, None) or await receive()

        await self._app(scope, replayed, send)

    async def _answer(self, is_v1: bool, receive: Receive, send: Send) -> None:
        service, length = self._service, None
        try:
            body = await _body(receive)
            if body is None:
                return
            ask = wire.read_v1(body) if is_v1 else wire.read_v2(body)
            predictions = await service.predict(ask.texts, "v1" if is_v1 else "v2")
            if is_v1:
                answer = wire.answer_v1(ask, predictions, service.version)
            else:
                answer, length = wire.answer_v2(ask, predictions, service.name, service.version)
        except _BodyTooLarge:
            await _refuse(send, 413, _TOO_LARGE)
        except wire.RequestInvalid as error:
            await _refuse(send, 400, str(error))
        except Overloaded as error:
            await _refuse(send, 429, str(error), (b"retry-after", str(error.retry_after_s).encode()))
        except BatchFailed as error:
            await _refuse(send, 500, f"the model failed: {error}")
        else:
            headers = [_JSON] if length is None else [_BINARY, (BINARY_HEADER, str(length).encode())]
            await _send(send, 200, answer, headers)


async def _body(receive: Receive) -> bytes | None:
    """The whole body; None when the client has left."""
    message = await receive()
    if message["type"] == "http.disconnect":
        return None
    body: bytes = message.get("body", b"")
    if message.get("more_body", False):
        parts, size = [body], len(body)
        while message.get("more_body", False):
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > MAX_BODY_BYTES:
                raise _BodyTooLarge
        body = b"".join(parts)
    if len(body) > MAX_BODY_BYTES:
        raise _BodyTooLarge
    return body


async def _refuse(send: Send, status: int, message: str, *headers: tuple[bytes, bytes]) -> None:
    """An error in the SDK's form."""
    await _send(send, status, msgspec.json.encode({"error": message}), [_JSON, *headers])


async def _send(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
