"""`GET /v1/events`: what the bot says to a user, on whatever channel it was asked, from any id on.

The outbox is the truth; a wake-up only tells when to read it again.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from chatflow_runtime.domain.reply import OutboxItem
from chatflow_runtime.errors import StateUnavailable
from chatflow_runtime.metrics import Connection
from chatflow_runtime.web.departure import Departure
from chatflow_runtime.web.exchange import Exchange
from chatflow_runtime.web.services import Services
from chatflow_runtime.web.sse import PULSE, EventStream, event_of
from chatflow_runtime.web.streams import Drained

PAGE = 100
"""Outbox entries read at a time."""
OPENING = b"retry: 1000\n\n"
"""First bytes of the stream: come back 1 s after a break."""


class Events:
    """The route."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def events(self, exchange: Exchange) -> None:
        """Stream a user's outbox until the client leaves or the gateway drains."""
        caller = self._services.gate.admit(exchange.scope, by_parameter=True)
        uid = caller.named(exchange.query("uid"))
        after = position_of(exchange)
        stream = EventStream(exchange)
        try:
            with self._services.streams.open(Connection.EVENTS), Departure(exchange.receive):
                await self._follow(stream, uid, after)
        except Drained:
            await stream.write(b"")
            await stream.close()

    async def _follow(self, stream: EventStream, uid: str, after: str | None) -> None:
        clock, pulse_s = self._services.clock, self._services.timing.pulse_s
        written_s: float | None = None
        async with aclosing(follow(self._services, uid, after)) as pages:
            async for items in pages:
                now_s = clock.monotonic_s()
                frames = [event_of(item) for item in items]
                if written_s is None:
                    frames.insert(0, OPENING)
                elif not frames and now_s - written_s >= pulse_s:
                    frames.append(PULSE)
                if frames:
                    await stream.write(b"".join(frames))
                    written_s = now_s


def position_of(exchange: Exchange) -> str | None:
    """The outbox id that a client has seen last: the header that browsers send on their own wins over the parameter of
    the first connection. None asks for new entries only."""
    header = exchange.headers.get(b"last-event-id")
    return (header.decode("latin-1") if header else exchange.query("last_event_id")) or None


async def follow(services: Services, uid: str, after: str | None) -> AsyncGenerator[Sequence[OutboxItem], None]:
    """A user's outbox entries after an id (None: from now on), for ever; empty pages in between, at the latest every
    `reread_s`. InvalidMessage when `after` is no id; StateUnavailable at the start alone: later, an outage is waited
    out."""
    store, reread_s = services.store, services.timing.reread_s
    with store.watch(uid) as watch:
        position = await _newest(services, uid) if after is None else after
        is_first = True
        while True:
            try:
                items = await store.outbox(uid, position, PAGE)
            except StateUnavailable as error:
                if is_first:
                    raise
                services.metrics.store_error(error.code)
                items = ()
            is_first = False
            if items:
                position = items[-1].id
            yield items
            if len(items) < PAGE:
                await watch.wait(reread_s)


async def _newest(services: Services, uid: str) -> str:
    """The id of the last entry, read from the outbox itself, since the state server's clock makes the ids."""
    newest, items = "0", await services.store.outbox(uid, "0", PAGE)
    while items:
        newest = items[-1].id
        items = await services.store.outbox(uid, newest, PAGE) if len(items) == PAGE else ()
    return newest
