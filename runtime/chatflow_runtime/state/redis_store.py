"""Conversation state on Redis or Valkey: ports.ConversationStore. One script a call, so one round trip each.

`bootstrap` opens it for the gateway; `redis_due` is the worker's side of the same keys.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any

from chatflow_api import names

from chatflow_runtime.domain.conversation import Conversation, Event, Memory, Message, Scene
from chatflow_runtime.domain.rate import Rate
from chatflow_runtime.domain.reply import OutboxItem
from chatflow_runtime.errors import ClaimLost, Overtaken, RateLimited
from chatflow_runtime.ports import (
    Answered,
    Claimed,
    Clock,
    Committed,
    Loaded,
    Outcome,
    Record,
    Rejected,
    Turn,
    Wait,
    Waiting,
    Watch,
)
from chatflow_runtime.state.codec import MEMORIES, MESSAGES, NOTICES, RECORDS, REPLIES, too_new
from chatflow_runtime.state.connection import Patience
from chatflow_runtime.state.keys import keys_of
from chatflow_runtime.state.link import Link, link_to
from chatflow_runtime.state.redis_hooks import told_with
from chatflow_runtime.state.rules import Rules
from chatflow_runtime.state.scripts import Status, render
from chatflow_runtime.state.stream_id import StreamId
from chatflow_runtime.state.wakeups import Wakeups


class RedisStore:
    """ConversationStore over one connection. With a `clock` its time takes the place of the server's (tests)."""

    def __init__(
        self,
        link: Link,
        wakeups: Wakeups,
        flow: str,
        rules: Rules,
        clock: Clock | None = None,
        *,
        lasting: Link | None = None,
    ) -> None:
        """`lasting` carries what must not be lost, and its replies come once replicas have it; the same link where
        nothing waits for replicas."""
        self._link = link
        self._lasting = lasting or link
        self._wakeups = wakeups
        self._flow = flow
        self._scripts = render(rules)
        self._history_messages = rules.history_messages
        self._user_rate, self._address_rate = rules.user_rate, rules.address_rate
        self._clock = clock

    async def load(self, turn: Turn) -> Loaded:
        """Claim the turn and read the conversation, or tell why not; RateLimited."""
        if turn.address is None:
            return await self._load(turn)
        # Both calls leave in one write: a claim given back now and then costs less than a round trip more each time.
        metering = asyncio.ensure_future(self.meter_address(turn.address))
        try:
            loaded = await self._load(turn)
        except BaseException:
            metering.cancel()
            raise
        try:
            await metering
        except RateLimited:
            if isinstance(loaded, Claimed):
                await self.release(turn)
            raise
        return loaded

    async def _load(self, turn: Turn) -> Loaded:
        keys = keys_of(self._flow, turn.uid)
        result, history = await self._link.run_then(
            self._scripts.load,
            (
                5,
                keys.conversation,
                keys.history,
                keys.replies,
                keys.outbox,
                keys.rate,
                self._now(),
                turn.message_id,
                turn.owner,
                MESSAGES.encode(Message("user", turn.text, self._at_ms(), turn.message_id)),
                turn.uid,
                keys.channel,
                "1" if turn.is_metered else "",
            ),
            ("LRANGE", keys.history, -self._history_messages, -1),
        )
        return _loaded(result, history, turn.uid)

    async def renew(self, turn: Turn) -> None:
        """Extend the lease; ClaimLost when another attempt has taken over."""
        keys = keys_of(self._flow, turn.uid)
        result = await self._link.run(
            self._scripts.renew, 2, keys.conversation, keys.replies, self._now(), turn.message_id, turn.owner
        )
        _check(result, turn)

    async def commit(self, turn: Turn, conversation: Conversation, outcome: Outcome) -> Committed:
        """Move the scene, append message and reply to the history, the reply to the outbox; ClaimLost when the claim or
        the revision is not the loaded one."""
        keys = keys_of(self._flow, turn.uid)
        where, told = told_with(self._flow, turn.uid, outcome.delivery)
        said = outcome.reply.text
        result = await self._lasting.run(
            self._scripts.commit_told if where else self._scripts.commit,
            6 + len(where),
            keys.conversation,
            keys.history,
            keys.replies,
            keys.outbox,
            keys.due,
            keys.records,
            *where,
            self._now(),
            turn.message_id,
            turn.owner,
            conversation.revision,
            outcome.event,
            MEMORIES.encode(outcome.memory),
            MESSAGES.encode(Message("assistant", said, self._at_ms(), turn.message_id)) if said else b"",
            REPLIES.encode(outcome.reply),
            turn.uid,
            keys.channel,
            *told,
            *[RECORDS.encode(record) for record in outcome.records],
        )
        _check(result, turn)
        return Committed(item=OutboxItem(id=result[1].decode(), item=outcome.reply), revision=result[2])

    async def release(self, turn: Turn) -> None:
        """Give the claim up with nothing written; does nothing when it is lost already."""
        keys = keys_of(self._flow, turn.uid)
        result = await self._link.run(
            self._scripts.release, 1, keys.conversation, turn.message_id, turn.owner, turn.uid, keys.channel
        )
        if result[0] != Status.LOST:
            _check(result, turn)

    async def history(self, uid: str) -> tuple[Message, ...]:
        """The last messages, oldest first."""
        key = keys_of(self._flow, uid).history
        rows = await self._link.call("LRANGE", key, -self._history_messages, -1)
        return tuple(MESSAGES.decode_all(rows))

    async def outbox(self, uid: str, after: str, limit: int = 100) -> Sequence[OutboxItem]:
        """Entries after a stream id (`0` for all that is kept), oldest first; InvalidMessage when it is none."""
        key = keys_of(self._flow, uid).outbox
        rows = await self._link.call("XRANGE", key, f"({StreamId.of(after)}", "+", "COUNT", limit)
        return [_outbox_item(at, fields) for at, fields in rows]

    def watch(self, uid: str) -> AbstractContextManager[Watch]:
        """Wake-ups of a user while the context lasts."""
        return self._wakeups.watch(uid)

    async def rate(self, uid: str, record: Record) -> Scene:
        """Keep a rating; ends the conversation when it was asked for one. Returns the scene."""
        keys = keys_of(self._flow, uid)
        result = await self._link.run(
            self._scripts.rate,
            3,
            keys.conversation,
            keys.due,
            keys.records,
            Event.RATED,
            RECORDS.encode(record),
            uid,
        )
        if result[0] == Status.TOO_NEW:
            raise too_new(f"the conversation of {uid!r}", result[1])
        return Scene(result[1].decode())

    async def meter_user(self, uid: str) -> None:
        """Charge a request that is no message to the user's rate; RateLimited."""
        await self._meter(keys_of(self._flow, uid).rate, self._user_rate, "this user")

    async def meter_address(self, address: str) -> None:
        """Charge a request to the rate of the client address that it comes from; RateLimited."""
        await self._meter(names.address_rate_key(self._flow, address), self._address_rate, "this address")

    async def _meter(self, key: str, rate: Rate, whose: str) -> None:
        if rate.is_limited:
            result = await self._link.run(self._scripts.meter, 1, key, self._now(), str(rate.interval_ms), rate.burst)
            if result[0] == Status.LIMITED:
                raise RateLimited(whose, result[1])

    async def ping(self) -> None:
        """StateUnavailable unless the server answers."""
        await self._link.call("PING")

    def _now(self) -> str | int:
        """Time for the scripts: leases and deadlines are the server's, since gateways' clocks differ."""
        return "" if self._clock is None else self._clock.now_ms()

    def _at_ms(self) -> int:
        """Time for people to read."""
        return time.time_ns() // 1_000_000 if self._clock is None else self._clock.now_ms()


@asynccontextmanager
async def open_redis_store(
    url: str, flow: str, rules: Rules, *, clock: Clock | None = None, patience: Patience | None = None
) -> AsyncIterator[RedisStore]:
    """A store with its two connections, closed at the end. StateUnavailable when the server cannot be reached."""
    link = link_to(url, scripts=render(rules).all(), patience=patience)
    wakeups = Wakeups(url, flow, patience=patience)
    try:
        await link.open()
        await wakeups.open()
        yield RedisStore(link, wakeups, flow, rules, clock)
    finally:
        await wakeups.close()
        await link.close()


def _check(result: list[Any], turn: Turn) -> None:
    """The errors that scripts of a claimed turn return."""
    if result[0] == Status.LOST:
        raise ClaimLost(f"message {turn.message_id!r} of {turn.uid!r} was taken over; load it again")
    if result[0] == Status.OVERTAKEN:
        raise Overtaken(f"message {turn.message_id!r} of {turn.uid!r}: a newer message has taken over")
    if result[0] == Status.TOO_NEW:
        raise too_new(f"the conversation of {turn.uid!r}", result[1])


def _loaded(result: list[Any], history: list[bytes], uid: str) -> Loaded:
    match Status(result[0]):
        case Status.CLAIMED:
            _, scene, revision, memory, handoff = result
            return Claimed(
                Conversation(
                    scene=Scene(scene.decode()),
                    revision=revision,
                    memory=MEMORIES.decode(memory) if memory else Memory(),
                    history=tuple(MESSAGES.decode_all(history)),
                    handoff=None if handoff is None else handoff.decode(),
                )
            )
        case Status.ANSWERED:
            return Answered(_outbox_item(result[1], result[2]))
        case Status.ATTACHED:
            return Waiting(Wait.ATTACHED, result[1])
        case Status.QUEUED:
            return Waiting(Wait.QUEUED, result[1])
        case Status.REJECTED:
            return Rejected(Scene(result[1].decode()))
        case Status.LIMITED:
            raise RateLimited("this user", result[1])
        case Status.TOO_NEW:
            raise too_new(f"the conversation of {uid!r}", result[1])
        case other:
            raise AssertionError(f"load.lua returned {other!r}")


def _outbox_item(at: bytes, fields: list[bytes]) -> OutboxItem:
    codec = REPLIES if fields[0] == b"r" else NOTICES
    return OutboxItem(id=at.decode(), item=codec.decode(fields[1]))
