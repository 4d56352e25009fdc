"""Server-sent events: framing, and the response that begins with its first event."""

from __future__ import annotations

from chatflow_runtime.domain.reply import OutboxItem, Reply
from chatflow_runtime.web import wire
from chatflow_runtime.web.exchange import Exchange
from chatflow_runtime.web.origins import Headers

HEADERS: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    # nginx and its kind would collect the events before passing them on.
    (b"x-accel-buffering", b"no"),
]
PULSE = b": still here\n\n"


class EventStream:
    """A response of server-sent events. Until its first event an error is still an ordinary problem response."""

    __slots__ = ("_exchange",)

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def write(self, frame: bytes) -> None:
        """Send a framed event or comment."""
        if not self._exchange.has_begun:
            await self._exchange.start(200, HEADERS)
        await self._exchange.write(frame, more=True)

    async def delta(self, text: str) -> None:
        """Send a piece of a reply; deltas carry no id, so that a client that resumes gets the whole reply."""
        await self.write(b"event: delta\ndata: " + wire.encode(wire.DeltaEvent(text)) + b"\n\n")

    async def pulse(self) -> None:
        """Send a sign of life."""
        await self.write(PULSE)

    async def close(self) -> None:
        """End the response."""
        await self._exchange.write(b"", more=False)


def event_of(item: OutboxItem) -> bytes:
    """An outbox entry as an event; its id is what a client resumes from."""
    content = item.item
    if isinstance(content, Reply):
        kind, data = b"reply", wire.encode(wire.reply_of(item, wire.ChatReply))
    else:
        kind, data = b"notice", wire.encode(wire.notice_of(item.id, content, wire.NoticeEvent))
    return b"event: " + kind + b"\nid: " + item.id.encode() + b"\ndata: " + data + b"\n\n"
