"""What every route is handed: the flow's configuration, the parts that do the work, and what the channels do with them:
answer a message, accept one to be answered later, keep a rating. Built once, by `app`."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from chatflow_api.runtime_config import RuntimeConfig
from starlette.types import Scope

from chatflow_runtime.answering import Counted
from chatflow_runtime.domain.access import client_address
from chatflow_runtime.domain.admission import Admission
from chatflow_runtime.domain.conversation import Message, Scene
from chatflow_runtime.domain.personal_data import without_personal_data
from chatflow_runtime.domain.reply import OutboxItem
from chatflow_runtime.errors import InvalidMessage
from chatflow_runtime.metrics import Channel, Metrics
from chatflow_runtime.ports import Accepted, Clock, ConversationStore, Entry, Inbox, Letter, Record, RecordKind
from chatflow_runtime.sink import DeltaSink
from chatflow_runtime.web import wire
from chatflow_runtime.web.departure import Departures
from chatflow_runtime.web.gate import Gate
from chatflow_runtime.web.problems import Problems
from chatflow_runtime.web.streams import Streams

MAX_BODY_BYTES = 64 * 1024
"""Longest request body, unless the manifest's longest text needs more."""
MAX_BYTES_PER_CHARACTER = 12
"""A character outside the basic plane, written as two JSON escapes."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Pauses of the streams, in seconds."""

    reread_s: float = 5.0
    """The outbox is read again after this long without a wake-up, since wake-ups may be lost."""
    pulse_s: float = 15.0
    """Silence after which a sign of life goes out; proxies close silent connections after 60 s or so."""
    patience_s: float = 0.25
    """A JSON request that takes longer than this, or at most twice this, is watched for a client that leaves."""


class Incoming(msgspec.Struct, frozen=True):
    """A message that has passed the checks of its form."""

    uid: str
    message_id: str
    text: str
    address: str | None
    """The client address that it comes from, where those are limited."""


@dataclass(frozen=True, slots=True)
class Services:
    """The parts behind the routes."""

    config: RuntimeConfig
    counted: Counted
    inbox: Inbox
    store: ConversationStore
    metrics: Metrics
    problems: Problems
    clock: Clock
    streams: Streams
    departures: Departures
    timing: Timing
    gate: Gate
    admission: Admission

    @property
    def max_body_bytes(self) -> int:
        """Longest body of a request with one message."""
        return max(MAX_BODY_BYTES, 2048 + MAX_BYTES_PER_CHARACTER * self.config.gateway.max_text_length)

    def address_of(self, scope: Scope) -> str | None:
        """The client address of a request; None where a flow sets no limit on those."""
        limits = self.config.gateway.rate_limit
        if limits.per_address.interval_ms == 0:
            return None
        forwarded = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
        peer = scope.get("client")
        return client_address("" if peer is None else peer[0], forwarded, limits.trusted_proxies)

    def incoming(self, uid: str, message_id: str | None, text: str, address: str | None) -> Incoming:
        """A message of an admitted user whose id and text are checked; without an id it gets one."""
        return Incoming(
            uid,
            wire.new_id("m") if message_id is None else wire.checked_id("message_id", message_id),
            wire.checked_text(text, self.config.gateway.max_text_length),
            address,
        )

    async def answer(
        self,
        channel: Channel,
        message: Incoming,
        sink: DeltaSink | None = None,
        history: tuple[Message, ...] | None = None,
    ) -> OutboxItem:
        """The committed reply, counted."""
        entry = Entry(address=message.address)
        return await self.counted.answer(channel, message.uid, message.message_id, message.text, sink, history, entry)

    async def accept(self, message: Incoming) -> Accepted:
        """Keep a message that is answered later."""
        if message.address is not None:
            await self.store.meter_address(message.address)
        accepted = await self.inbox.accept(Letter(message.uid, message.message_id, message.text, self.clock.now_ms()))
        self.metrics.accepted()
        return accepted

    async def rate(self, uid: str, score: int, comment: str | None, message_id: str | None) -> Scene:
        """Keep a rating; InvalidMessage outside the flow's scale. Returns the scene that the conversation is in now."""
        scale = self.config.dialogue.rating_scale
        if not 1 <= score <= scale:
            raise InvalidMessage(f"score {score} lies outside this flow's scale; send a whole number from 1 to {scale}")
        if message_id is not None:
            wire.checked_id("message_id", message_id)
        await self.store.meter_user(uid)
        record = Record(
            RecordKind.RATING,
            uid,
            self.clock.now_ms(),
            {"score": score, "scale": scale, "message_id": message_id, "comment": _kept(comment)},
        )
        scene = await self.store.rate(uid, record)
        self.metrics.rated(score)
        return scene


def _kept(comment: str | None) -> str | None:
    return None if comment is None else without_personal_data(comment)
