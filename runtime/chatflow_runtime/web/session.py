"""One WebSocket connection: its frames, its turns under way, and the pump that brings the user's outbox.

A reply to a message of this connection reaches it once, from the turn itself; the outbox brings what other channels and
the worker have to say.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import assert_never

import msgspec
import structlog
from starlette.types import Message, Receive, Send

from chatflow_runtime.domain.reply import OutboxItem, Reply
from chatflow_runtime.errors import ChatFlowError, ConversationBusy
from chatflow_runtime.metrics import Channel
from chatflow_runtime.web import wire
from chatflow_runtime.web.events import follow
from chatflow_runtime.web.problems import entry_of
from chatflow_runtime.web.services import Incoming, Services

log = structlog.get_logger()

MAX_TURNS = 8
"""Messages of one connection that may be under way; the conversation's policy decides on each, this bounds them."""
REMEMBERED = 256
"""How many outbox ids a connection remembers as sent."""
TRY_AGAIN_LATER = 1013
"""Close code of a connection whose outbox cannot be read just now."""
POLICY_VIOLATION = 1008
"""Close code of a connection that asks for an outbox id which is none."""
WANTED = 'a frame {"type": "message" | "resume" | "rating" | "ping", ...} as described under /docs'

_client_frame: msgspec.json.Decoder[wire.ClientFrame] = msgspec.json.Decoder(wire.ClientFrame)


class Session:
    """The state of a connection."""

    def __init__(self, services: Services, uid: str, address: str | None, request_id: str, send: Send) -> None:
        self._services = services
        self._uid = uid
        self._address = address
        self._request_id = request_id
        self._send = send
        self._turns: dict[str, asyncio.Task[None]] = {}
        self._held: dict[str, OutboxItem] = {}
        """Replies that the outbox brought while their own turn was still about to deliver them."""
        self._sent: OrderedDict[str, None] = OrderedDict()

    async def serve(self, receive: Receive) -> None:
        """Take frames until the client leaves, which cancels its turns; when the gateway drains, they are finished."""
        self._pump = asyncio.ensure_future(self._guarded(partial(self._follow, None)))
        try:
            await self._read(receive)
        except asyncio.CancelledError:
            if self._services.streams.is_draining and self._turns:
                await asyncio.wait(self._turns.values())
            raise
        finally:
            for task in (self._pump, *self._turns.values()):
                task.cancel()

    async def _read(self, receive: Receive) -> None:
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return
            try:
                await self._take(_frame_of(message))
            except ChatFlowError as error:
                await self._fail(error)

    async def _take(self, frame: wire.ClientFrame) -> None:
        match frame:
            case wire.MessageFrame():
                await self._begin_turn(frame)
            case wire.ResumeFrame(last_event_id=after):
                self._pump.cancel()
                self._pump = asyncio.ensure_future(self._guarded(partial(self._follow, after)))
            case wire.RatingFrame():
                scene = await self._services.rate(self._uid, frame.score, frame.comment, frame.message_id)
                await self._write(wire.RatedFrame(scene))
            case wire.PingFrame():
                await self._write(wire.PongFrame())
            case _:
                assert_never(frame)

    async def _begin_turn(self, frame: wire.MessageFrame) -> None:
        try:
            message = self._services.incoming(self._uid, frame.message_id, frame.text, self._address)
            if len(self._turns) >= MAX_TURNS and message.message_id not in self._turns:
                raise ConversationBusy(f"{MAX_TURNS} messages of this connection are under way; wait for their replies")
        except ChatFlowError as error:
            await self._fail(error, frame.message_id)
            return
        if message.message_id not in self._turns:
            self._turns[message.message_id] = asyncio.ensure_future(self._guarded(partial(self._turn, message)))

    async def _turn(self, message: Incoming) -> None:
        message_id = message.message_id
        try:
            item = await self._services.answer(Channel.WEBSOCKET, message, _Deltas(message_id, self._write))
            await self._deliver(item)
        except ChatFlowError as error:
            await self._fail(error, message_id)
        finally:
            del self._turns[message_id]
            held = self._held.pop(message_id, None)
        if held is not None and held.id not in self._sent:
            await self._deliver(held)

    async def _follow(self, after: str | None) -> None:
        async with aclosing(follow(self._services, self._uid, after)) as pages:
            async for items in pages:
                for item in items:
                    await self._bring(item)

    async def _bring(self, item: OutboxItem) -> None:
        if isinstance(item.item, Reply) and item.item.message_id in self._turns:
            self._held[item.item.message_id] = item
        elif item.id not in self._sent:
            await self._deliver(item)

    async def _deliver(self, item: OutboxItem) -> None:
        self._sent[item.id] = None
        if len(self._sent) > REMEMBERED:
            self._sent.popitem(last=False)
        if isinstance(item.item, Reply):
            await self._write(wire.reply_of(item, wire.ReplyFrame))
        else:
            await self._write(wire.notice_of(item.id, item.item, wire.NoticeFrame))

    async def _fail(self, error: ChatFlowError, message_id: str | None = None) -> None:
        if entry_of(type(error)).status >= 500:
            log.warning("frame_failed", request_id=self._request_id, code=error.code, reason=str(error))
        await self._write(wire.ErrorFrame(self._services.problems.of(error, self._request_id), message_id))

    async def _write(self, frame: wire.ServerFrame) -> None:
        await self._send({"type": "websocket.send", "text": wire.encode(frame).decode()})

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run a task of this connection to its end. A process edge: a failure is told to the client, and logged."""
        try:
            await work()
        except ChatFlowError as error:
            # Only the pump lets one through: without the outbox the connection is of no use.
            await self._fail(error)
            code = TRY_AGAIN_LATER if error.is_retryable else POLICY_VIOLATION
            await self._send({"type": "websocket.close", "code": code, "reason": error.code})
        except OSError:
            return
        except Exception:
            log.exception("frame_broke", request_id=self._request_id)
            await self._fail(ChatFlowError())


class _Deltas:
    """Sends the pieces of one reply."""

    def __init__(self, message_id: str, write: Callable[[wire.ServerFrame], Awaitable[None]]) -> None:
        self._message_id = message_id
        self._write = write

    async def delta(self, text: str) -> None:
        """Send a piece; ConnectionError when the client has left."""
        try:
            await self._write(wire.DeltaFrame(text, self._message_id))
        except OSError as error:
            raise ConnectionError("the client closed the connection") from error


def _frame_of(message: Message) -> wire.ClientFrame:
    text: str | None = message.get("text")
    return wire.decode(_client_frame, message["bytes"] if text is None else text, WANTED)
