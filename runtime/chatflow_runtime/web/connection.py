"""What a connection may cost before any route sees it: uvicorn's HTTP protocol with deadlines, bounds, and refusals.

uvicorn alone waits for ever for a head or a body, keeps heads of any size, and lets trailers join the headers.
httptools (llhttp, strict) refuses whatever two servers might read differently: lengths that are no numbers or
contradict each other, a length beside chunks, line ends that are none.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Mapping
from http import HTTPStatus

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from chatflow_runtime.errors import ChatFlowError
from chatflow_runtime.web.exchange import new_request_id
from chatflow_runtime.web.problems import (
    PROBLEM_STYLE,
    HeadTooLarge,
    MalformedRequest,
    RequestLate,
    TooManyConnections,
    UpgradeNeeded,
    problem_of,
)

MAX_HEAD_BYTES = 64 * 1024
"""Longest head: more than proxies in front pass on."""
MAX_CONNECTIONS = 16_384
"""Of one process; an idle one costs some 20 KiB."""
RESERVED_FILES = 256
"""Files that the process needs for other things than its clients."""
LINGER_S = 2.0
"""What a refused client goes on sending is dropped for this long: closing at once would reset the connection, and the
client would never read why."""
WEBSOCKET: Mapping[str, str] = {"upgrade": "websocket", "sec-websocket-version": "13"}
"""Headers of a 426 response (RFC 6455, 4.4)."""


def refusal(error: ChatFlowError, headers: Mapping[str, str] | None = None) -> bytes:
    """A whole response with a problem, after which the connection is over."""
    problem = problem_of(error, new_request_id())
    body = PROBLEM_STYLE.body(problem)
    upgrade = "upgrade, close" if headers and "upgrade" in headers else "close"
    fields = {
        "content-type": PROBLEM_STYLE.content_type.decode(),
        "content-length": str(len(body)),
        "x-request-id": problem.request_id,
        "connection": upgrade,
        **(headers or {}),
    }
    head = f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\n"
    return (head + "".join(f"{name}: {value}\r\n" for name, value in fields.items()) + "\r\n").encode() + body


def most_connections() -> int:
    """How many connections a process takes: bounded by what it may open."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if files == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, files - RESERVED_FILES)


class HttpConnection(HttpToolsProtocol):
    """One connection. After a refusal it only drops what still comes."""

    head_s = 10.0
    """A request's head must be there this long after the connection or the head's first byte."""
    body_s = 30.0
    """The body must be there this long after its head: 1 MiB at 35 KB/s."""
    _is_over = False
    _is_whole = True
    """Whether no request is there in part."""
    _unparsed_bytes = 0
    """Bytes since the parser last gave something away, which is what it may hold."""
    _deadline: asyncio.TimerHandle | None = None
    _due_s = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a first head, unless there are too many connections already."""
        super().connection_made(transport)
        if len(self.connections) > most_connections():
            self._refuse(TooManyConnections("this gateway has as many connections as it takes; try again"))
        else:
            self._expect(self.head_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any longer."""
        self._expect_nothing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and refuse what it refuses."""
        self._unset_keepalive_if_required()
        if self._is_over:
            return
        self._unparsed_bytes += len(data)
        self._feed(data)
        if self._deadline is None and self._is_waiting():
            self._expect(self.head_s)

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(
                cause
                if isinstance(cause, ChatFlowError)
                else MalformedRequest(f"this is no HTTP/1.1 request ({error}); check what was sent")
            )
        else:
            if self._unparsed_bytes > MAX_HEAD_BYTES and not self._is_whole:
                self._refuse(_head_too_large())

    def _is_waiting(self) -> bool:
        """Whether it is the client's turn to send."""
        return not self._is_over and (not self._is_whole or self.cycle is None or self.cycle.response_complete)

    def on_message_begin(self) -> None:
        """A request begins."""
        self._is_whole = False
        self._due_s = self.loop.time() + self.head_s
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Check the head. MalformedRequest, HeadTooLarge."""
        self._check_head()
        if self.parser.should_upgrade():
            if self._should_upgrade():
                super().on_headers_complete()
            return
        super().on_headers_complete()
        # Trailers come by the same callback as headers, and must not join them.
        self.headers = []
        self._unparsed_bytes = 0
        self._due_s = self.loop.time() + self.body_s

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._unparsed_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is there."""
        self._is_whole = True
        self._unparsed_bytes = 0
        self._expect_nothing()
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection to the WebSocket protocol, in the one version that there is."""
        if dict(self.headers).get(b"sec-websocket-version") != b"13":
            self._refuse(UpgradeNeeded("this gateway speaks version 13 of the WebSocket protocol"), WEBSOCKET)
            return
        super().handle_websocket_upgrade()

    def _should_upgrade(self) -> bool:
        return self.parser.get_http_version() == "1.1" and super()._should_upgrade()

    def _check_head(self) -> None:
        if self._unparsed_bytes > MAX_HEAD_BYTES:
            head_bytes = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if head_bytes > MAX_HEAD_BYTES:
                raise _head_too_large()
        hosts = 0
        for name, value in self.headers:
            if name == b"host":
                hosts += 1
            elif name == b"transfer-encoding" and value.lower() != b"chunked":
                raise MalformedRequest("the transfer encoding is not known; send the body plain or in chunks")
        if hosts != 1 and (hosts or self.parser.get_http_version() == "1.1"):
            raise MalformedRequest(f"the request has {hosts} Host headers; send one")
        if self.parser.get_method() == b"CONNECT":
            raise MalformedRequest("this is no proxy")

    def _upgrade(self, rest: bytes) -> None:
        if self._should_upgrade():
            self.handle_websocket_upgrade()
            return
        # Clients offer HTTP/2 (h2c) with ordinary requests. The parser has stopped at the head: read the request anew
        # without the offer.
        version = self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
        lines += [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.data_received(b"\r\n".join([*lines, b"", rest]))

    def _expect(self, seconds: float) -> None:
        if self._is_whole:
            self._due_s = self.loop.time() + seconds
        self._deadline = self.loop.call_later(seconds, self._check_deadline)

    def _expect_nothing(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _check_deadline(self) -> None:
        self._deadline = None
        left_s = self._due_s - self.loop.time()
        if self.flow.read_paused:
            # It is the gateway that does not read on: an earlier request is still being answered.
            self._due_s = self.loop.time() + self.body_s
            self._expect(self.body_s)
        elif left_s > 0:
            self._deadline = self.loop.call_later(left_s, self._check_deadline)
        elif self._is_whole:
            # Browsers open connections ahead of need, and would show whatever they read there.
            self.transport.close()
        else:
            self._refuse(RequestLate("the request did not come whole in time; send it again"))

    def _refuse(self, error: ChatFlowError, headers: Mapping[str, str] | None = None) -> None:
        """Answer and end; only end when a response is under way, which nothing may be written into."""
        self._is_over = True
        self._expect_nothing()
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            is_answering = cycle.response_started or not cycle.more_body
            cycle.disconnected = True
            cycle.message_event.set()
            if is_answering:
                self.transport.close()
                return
        self.transport.write(refusal(error, headers))
        self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.close)


def _head_too_large() -> HeadTooLarge:
    return HeadTooLarge(f"the request's head has more than {MAX_HEAD_BYTES} bytes; send fewer or shorter headers")
