"""`POST /v1/chat` and `POST /v1/ratings`: one message, one reply, as JSON or as a stream of events.
`POST /v1/messages`: one message, answered later."""

from __future__ import annotations

import msgspec

from chatflow_runtime.metrics import Channel
from chatflow_runtime.web import wire
from chatflow_runtime.web.departure import Departure
from chatflow_runtime.web.exchange import Exchange, retry_after
from chatflow_runtime.web.services import Incoming, Services
from chatflow_runtime.web.sse import EventStream, event_of

_chat_request = msgspec.json.Decoder(wire.ChatRequest)
_rating_request = msgspec.json.Decoder(wire.RatingRequest)

WANTED_CHAT = 'an object {"text", "message_id", "uid"} of strings'
WANTED_RATING = 'an object {"score"} with a whole number, and uid, comment and message_id if you like'


class Chat:
    """The routes."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._max_body_bytes = services.max_body_bytes

    async def chat(self, exchange: Exchange) -> None:
        """Answer a message: JSON, or events when the client accepts text/event-stream."""
        message = await self._message(exchange)
        if b"text/event-stream" in exchange.headers.get(b"accept", b""):
            await self._stream(exchange, message)
            return
        with self._services.departures.patient(exchange.receive):
            item = await self._services.answer(Channel.REST, message)
        reply = wire.reply_of(item, wire.ChatReply)
        await exchange.respond(200, wire.encode(reply), headers=retry_after(reply.retry_after_s))

    async def accept(self, exchange: Exchange) -> None:
        """Keep a message; its reply comes in the outbox."""
        message = await self._message(exchange)
        accepted = await self._services.accept(message)
        known = wire.AcceptedMessage(message.message_id, accepted.position, accepted.resume)
        await exchange.respond(202, wire.encode(known))

    async def rate(self, exchange: Exchange) -> None:
        """Keep a rating."""
        caller = self._services.gate.admit(exchange.scope)
        body = await exchange.body(self._max_body_bytes)
        request = wire.decode(_rating_request, body, WANTED_RATING)
        uid = caller.named(request.uid)
        scene = await self._services.rate(uid, request.score, request.comment, request.message_id)
        await exchange.respond(200, wire.encode(wire.Rated(scene)))

    async def _message(self, exchange: Exchange) -> Incoming:
        caller = self._services.gate.admit(exchange.scope)
        body = await exchange.body(self._max_body_bytes)
        request = wire.decode(_chat_request, body, WANTED_CHAT)
        address = self._services.address_of(exchange.scope)
        return self._services.incoming(caller.named(request.uid), request.message_id, request.text, address)

    async def _stream(self, exchange: Exchange, message: Incoming) -> None:
        stream = EventStream(exchange)
        with Departure(exchange.receive, stream.pulse, self._services.timing.pulse_s):
            item = await self._services.answer(Channel.SSE, message, stream)
        await stream.write(event_of(item))
        await stream.close()
