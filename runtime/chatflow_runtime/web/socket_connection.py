"""uvicorn's WebSocket protocol, with what it leaves open: text that is checked as it comes, bounds on what a client can
make it keep, and refusals that reach the client."""

from __future__ import annotations

import codecs

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidMessage
from websockets.frames import CloseCode, Frame

from chatflow_runtime.web.connection import LINGER_S, refusal
from chatflow_runtime.web.problems import HeadTooLarge, MalformedRequest

MAX_FRAGMENTS = 4096
"""Frames of one message. Empty ones count nothing towards its size."""
MAX_CONTROLS = 100
"""Pings and pongs within a second. A few clients that send nothing else would keep the process busy for seconds."""

_Decoder = codecs.getincrementaldecoder("utf-8")


class SocketConnection(WebSocketsSansIOProtocol):
    """One connection."""

    _decoder: codecs.IncrementalDecoder | None = None
    """Reads the text of a message in fragments."""
    _has_failed = False
    _controls = 0
    _counted_from_s = 0.0

    def data_received(self, data: bytes) -> None:
        """Feed the parser; after a failure what still comes is dropped."""
        if self._has_failed:
            return
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            self._refuse_handshake(self.conn.handshake_exc)

    def handle_text(self, event: Frame) -> None:
        """The first frame of a text, or all of it."""
        self._decoder = _Decoder()
        if self._is_text(event):
            super().handle_text(event)

    def handle_bytes(self, event: Frame) -> None:
        """The first frame of a binary message, or all of it."""
        self._decoder = None
        super().handle_bytes(event)

    def handle_cont(self, event: Frame) -> None:
        """A further frame of a message."""
        if len(self.frames) >= MAX_FRAGMENTS:
            self._fail(CloseCode.MESSAGE_TOO_BIG, f"a message has {MAX_FRAGMENTS} frames at most")
        elif self._is_text(event):
            super().handle_cont(event)

    def handle_ping(self) -> None:
        """Answer, unless the client does not read: its pings may not fill the memory."""
        if self._is_flooded():
            return
        pong = b"".join(self.conn.data_to_send())
        if self.writable.is_set():
            self.transport.write(pong)

    def handle_pong(self, event: Frame) -> None:
        """Take it for the answer to a ping, if it is one."""
        if not self._is_flooded():
            super().handle_pong(event)

    def handle_parser_exception(self) -> None:
        """Tell the client why, and let it read that before the connection ends."""
        closed = self.conn.close_sent
        code, reason = (CloseCode.ABNORMAL_CLOSURE, "") if closed is None else (closed.code, closed.reason)
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self._end(b"".join(self.conn.data_to_send()))

    async def send(self, message: ASGISendEvent) -> None:
        """Send. uvicorn would report a handshake that is refused with a response as one that was never answered, and
        take what is sent after a failure for an error of the application."""
        if self._has_failed:
            raise ClientDisconnected
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            self.handshake_complete = True

    def _is_flooded(self) -> bool:
        """Count a control frame; fails the connection at one too many."""
        now_s = self.loop.time()
        if now_s - self._counted_from_s >= 1.0:
            self._counted_from_s, self._controls = now_s, 0
        self._controls += 1
        if self._controls > MAX_CONTROLS:
            self._fail(CloseCode.POLICY_VIOLATION, f"{MAX_CONTROLS} pings and pongs a second at most")
        return self._has_failed

    def _is_text(self, event: Frame) -> bool:
        if self._decoder is None or self.close_sent:
            return not self.close_sent
        try:
            self._decoder.decode(event.data, final=event.fin)
        except UnicodeDecodeError as error:
            self._fail(CloseCode.INVALID_DATA, f"no UTF-8: {error.reason}")
            return False
        return True

    def _fail(self, code: CloseCode, reason: str) -> None:
        if self._has_failed:
            return
        self.conn.fail(code, reason)
        self.handle_parser_exception()

    def _refuse_handshake(self, error: Exception) -> None:
        self.handshake_initiated = self.handshake_complete = True
        kind = MalformedRequest if isinstance(error, InvalidMessage) else HeadTooLarge
        self._end(refusal(kind(f"this is no WebSocket handshake ({error.__cause__ or error}); check what was sent")))

    def _end(self, last: bytes) -> None:
        self.close_sent = self._has_failed = True
        self.transport.write(last)
        self.transport.write_eof()
        if self.close_timer is None:
            self.close_timer = self.loop.call_later(LINGER_S, self.transport.close)
