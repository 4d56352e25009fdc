"""One HTTP request and its response, straight on ASGI: the fast path that the chat routes are written against."""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Mapping
from urllib.parse import parse_qs

from starlette.types import Message, Receive, Scope, Send

from chatflow_runtime.errors import ChatFlowError
from chatflow_runtime.web.origins import Headers, Origins
from chatflow_runtime.web.problems import PROBLEM_STYLE, BodyTooLarge, MalformedRequest, Problem, Problems

JSON = b"application/json"
CHALLENGE = (b"www-authenticate", b'Bearer realm="chatflow"')
"""What a 401 response says of the credential that is missing (RFC 6750)."""

_REQUEST_ID = re.compile(rb"[!-~]{1,128}")
_run_id = secrets.token_hex(6)
_numbers = itertools.count()


class ClientLeft(ConnectionError):
    """The client closed the connection; nobody waits for a response any longer."""


def given_request_id(headers: Mapping[bytes, bytes]) -> str | None:
    """The client's x-request-id if it is 1 to 128 visible ASCII characters."""
    given = headers.get(b"x-request-id")
    return None if given is None or _REQUEST_ID.fullmatch(given) is None else given.decode()


def new_request_id() -> str:
    """An id for a request that came without one: random per process, counted within it."""
    return f"{_run_id}-{next(_numbers):x}"


class Exchange:
    """A request, and the ways to answer it."""

    __slots__ = (
        "_extra",
        "_problems",
        "_request_id",
        "_send",
        "has_begun",
        "headers",
        "is_over",
        "receive",
        "scope",
        "style",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send, origins: Origins, problems: Problems) -> None:
        self.scope = scope
        self.receive = receive
        self._send = send
        self._problems = problems
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self._request_id = given_request_id(self.headers)
        self.has_begun = False
        self.is_over = False
        self.style = PROBLEM_STYLE
        """How errors of this route are written."""
        origin = self.headers.get(b"origin")
        self._extra: Headers = origins.vary if origin is None else origins.response_headers(origin, self.headers)
        if self._request_id is not None:
            self._extra = [*self._extra, _request_id_header(self._request_id)]

    @property
    def request_id(self) -> str:
        """The client's own id of the request, or one that is made up once somebody asks."""
        if self._request_id is None:
            self._request_id = new_request_id()
            self._extra = [*self._extra, _request_id_header(self._request_id)]
        return self._request_id

    def query(self, name: str) -> str | None:
        """A query parameter, the last of several."""
        return query_parameter(self.scope, name)

    async def body(self, limit: int) -> bytes:
        """The whole request body; BodyTooLarge beyond `limit` bytes, ClientLeft when it never comes whole."""
        length = self.headers.get(b"content-length")
        if length is not None and int(length) > limit:
            raise too_large(int(length), limit)
        body: bytes = b""
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientLeft("the connection closed before the body was there")
            body += message.get("body", b"")
            # Bodies in chunks come without a length.
            if len(body) > limit:
                raise too_large(len(body), limit)
            if not message.get("more_body", False):
                return body

    async def start(self, status: int, headers: Headers) -> None:
        """Begin the response; the request id, where there is one, and the CORS headers join by themselves."""
        self.has_begun = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers + self._extra})

    async def write(self, body: bytes, *, more: bool) -> None:
        """A piece of the response body."""
        self.is_over = not more
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def respond(
        self, status: int, body: bytes, content_type: bytes = JSON, headers: Headers | None = None
    ) -> None:
        """The whole response."""
        self.has_begun = self.is_over = True
        own = [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), *self._extra]
        if headers is not None:
            own += headers
        await self._send({"type": "http.response.start", "status": status, "headers": own})
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def fail(self, error: ChatFlowError, headers: Headers | None = None) -> None:
        """Answer with a problem: as a response, or as the last event of a stream that has begun."""
        if self.is_over:
            return
        problem = self._problems.of(error, self.request_id)
        if self.has_begun:
            await self.write(self.style.frame(problem), more=False)
            return
        extra = list(headers or ()) + failure_headers(problem)
        await self.respond(problem.status, self.style.body(problem), self.style.content_type, extra)

    async def decorated_send(self, message: Message) -> None:
        """For applications behind the fast path: their responses get the extra headers that they do not set already."""
        if message["type"] == "http.response.start":
            self.has_begun = True
            own = list(message.get("headers", ()))
            named = {name for name, _ in own} - {b"vary"}
            message = {**message, "headers": own + [header for header in self._extra if header[0] not in named]}
        else:
            self.is_over = not message.get("more_body", False)
        await self._send(message)


def _request_id_header(request_id: str) -> tuple[bytes, bytes]:
    return b"x-request-id", request_id.encode()


def retry_after(seconds: int | None) -> list[tuple[bytes, bytes]]:
    """The header that says when to try again, where that is known."""
    return [] if seconds is None else [(b"retry-after", b"%d" % seconds)]


def failure_headers(problem: Problem) -> list[tuple[bytes, bytes]]:
    """What goes along with a problem: when to try again, and how to say who one is."""
    return retry_after(problem.retry_after_s) + ([CHALLENGE] if problem.status == 401 else [])


def query_parameter(scope: Scope, name: str) -> str | None:
    """A parameter of the query string, the last of several; None when it is missing.

    MalformedRequest unless the query is in UTF-8: replacement characters would make one value of many.
    """
    try:
        parameters = parse_qs(scope["query_string"].decode("ascii"), keep_blank_values=True, errors="strict")
    except UnicodeError as error:
        raise MalformedRequest(
            "the query is not in UTF-8; write other characters as percent signs and bytes"
        ) from error
    given = parameters.get(name)
    return None if given is None else given[-1]


def too_large(length: int, limit: int) -> BodyTooLarge:
    """The error for a body that is longer than a route takes."""
    return BodyTooLarge(f"the request body has at least {length} bytes; send at most {limit}")
