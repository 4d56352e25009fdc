"""`POST /v1/chat/completions`: the chat for clients that speak OpenAI's protocol.

With `user` the conversation is that user's, with its stored history, slots and actions. Without it each request is a
conversation of its own, and the messages that it sends along stand in as history.
"""

from __future__ import annotations

import hashlib

import msgspec

from chatflow_runtime.domain.conversation import Message
from chatflow_runtime.domain.reply import OutboxItem, Usage
from chatflow_runtime.errors import InvalidMessage
from chatflow_runtime.metrics import Channel
from chatflow_runtime.web import completion_types as types
from chatflow_runtime.web import wire
from chatflow_runtime.web.departure import Departure
from chatflow_runtime.web.exchange import Exchange, retry_after
from chatflow_runtime.web.gate import Caller
from chatflow_runtime.web.problems import OPENAI_STYLE
from chatflow_runtime.web.services import Incoming, Services
from chatflow_runtime.web.sse import EventStream

MAX_BODY_BYTES = 1024 * 1024
"""Longest request: clients send whole conversations and long system prompts along."""
MAX_HISTORY = 200
"""Messages of a request that count as history; the prompt's token budget takes fewer."""
DONE = b"data: [DONE]\n\n"
WANTED = 'an object {"model", "messages": [..., {"role": "user", "content": "..."}]}'

_completion_request = msgspec.json.Decoder(types.CompletionRequest)


class Completions:
    """The route."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def complete(self, exchange: Exchange) -> None:
        """Answer the last message of the request, whole or as a stream."""
        exchange.style = OPENAI_STYLE
        caller = self._services.gate.admit(exchange.scope)
        body = await exchange.body(MAX_BODY_BYTES)
        request = wire.decode(_completion_request, body, WANTED)
        message = self._message(exchange, caller, request, body)
        history = _history(request.messages[:-1], message.message_id) if request.user is None else None
        if request.stream:
            await self._stream(exchange, request, message, history)
            return
        with self._services.departures.patient(exchange.receive):
            item = await self._services.answer(Channel.OPENAI, message, history=history)
        completion = self._completion(message, item)
        await exchange.respond(200, wire.encode(completion), headers=retry_after(completion.chatflow.retry_after_s))

    def _message(self, exchange: Exchange, caller: Caller, request: types.CompletionRequest, body: bytes) -> Incoming:
        last = request.messages[-1]
        if last.role != "user":
            raise InvalidMessage(f"the last message has role {last.role!r}; end with the user's message to be answered")
        if request.n not in (None, 1):
            raise InvalidMessage(f"n is {request.n}; a turn has one answer, leave n out")
        # A client that repeats a failed request under the same key gets one answer, not two.
        key = exchange.headers.get(b"idempotency-key")
        if request.user is not None:
            uid = caller.named(request.user)
        else:
            uid = wire.new_id("anonymous") if key is None else _anonymous(caller, key, body)
        message_id = None if key is None else key.decode("latin-1")
        return self._services.incoming(uid, message_id, last.text, self._services.address_of(exchange.scope))

    async def _stream(
        self,
        exchange: Exchange,
        request: types.CompletionRequest,
        message: Incoming,
        history: tuple[Message, ...] | None,
    ) -> None:
        stream = EventStream(exchange)
        chunks = _Chunks(stream, _id_of(message), self._created(), self._services.config.flow.name)
        with Departure(exchange.receive, stream.pulse, self._services.timing.pulse_s):
            item = await self._services.answer(Channel.OPENAI, message, chunks, history)
        reply = wire.reply_of(item, wire.ChatReply)
        if not chunks.has_begun:
            await chunks.delta(reply.text)
        await chunks.finish(reply)
        if request.stream_options is not None and request.stream_options.include_usage:
            await chunks.usage(_usage(reply.usage))
        await stream.write(DONE)
        await stream.close()

    def _completion(self, message: Incoming, item: OutboxItem) -> types.Completion:
        reply = wire.reply_of(item, wire.ChatReply)
        return types.Completion(
            id=_id_of(message),
            created=self._created(),
            model=self._services.config.flow.name,
            choices=(types.Choice(types.AssistantMessage(reply.text), _finish_reason(reply)),),
            usage=_usage(reply.usage),
            chatflow=reply,
        )

    def _created(self) -> int:
        return self._services.clock.now_ms() // 1000


class _Chunks:
    """Writes the pieces of one answer as chunks."""

    def __init__(self, stream: EventStream, completion_id: str, created: int, model: str) -> None:
        self._stream = stream
        self._id = completion_id
        self._created = created
        self._model = model
        self.has_begun = False

    async def delta(self, text: str) -> None:
        """Send a piece; the first one names the role."""
        delta = types.ChunkDelta(content=text) if self.has_begun else types.ChunkDelta("assistant", text)
        self.has_begun = True
        await self._write((types.ChunkChoice(delta),))

    async def finish(self, reply: wire.ChatReply) -> None:
        """Send the end of the choice, with the reply's own fields."""
        await self._write((types.ChunkChoice(types.ChunkDelta(), _finish_reason(reply)),), chatflow=reply)

    async def usage(self, usage: types.CompletionUsage) -> None:
        """Send the chunk that has usage and no choice."""
        await self._write((), usage=usage)

    async def _write(
        self,
        choices: tuple[types.ChunkChoice, ...],
        usage: types.CompletionUsage | None = None,
        chatflow: wire.ChatReply | None = None,
    ) -> None:
        chunk = types.Chunk(
            id=self._id,
            created=self._created,
            model=self._model,
            object="chat.completion.chunk",
            choices=choices,
            usage=usage,
            chatflow=chatflow,
        )
        await self._stream.write(b"data: " + wire.encode(chunk) + b"\n\n")


def _id_of(message: Incoming) -> str:
    return f"chatcmpl-{message.message_id}"


def _finish_reason(reply: wire.ChatReply) -> types.FinishReason:
    return "length" if reply.is_partial else "stop"


def _usage(usage: Usage | None) -> types.CompletionUsage:
    counted = usage or Usage()
    return types.CompletionUsage(
        counted.prompt_tokens, counted.completion_tokens, counted.prompt_tokens + counted.completion_tokens
    )


def _anonymous(caller: Caller, key: bytes, body: bytes) -> str:
    """The user id of a request without one: the same for the same request under the same key, and of nobody else."""
    digest = hashlib.blake2b(b"\0".join(((caller.uid or "").encode(), key, body)), digest_size=16)
    return f"anonymous-{digest.hexdigest()}"


def _history(messages: list[types.CompletionMessage], message_id: str) -> tuple[Message, ...]:
    """What user and assistant said before. System prompts are left out: the manifest's persona leads the model."""
    said = [message for message in messages if message.role in ("user", "assistant") and message.text]
    return tuple(
        Message("user" if message.role == "user" else "assistant", message.text, 0, message_id)
        for message in said[-MAX_HISTORY:]
    )
