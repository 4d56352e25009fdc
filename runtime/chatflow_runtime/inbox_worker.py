"""Answers the messages that gateways have accepted for later, those of one conversation in their order.

Runs beside `worker` on the partitions that it owns. A message leaves its inbox once its reply is in the outbox, and is
still there; until then whoever has the partition next begins with it, and the turn's claim and the message id see to
one answer. What is held here are names: a body is read when it is answered, so one that cannot be read stops its own
conversation alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import structlog

from chatflow_runtime.answering import Counted
from chatflow_runtime.desks import Desk, Desks
from chatflow_runtime.domain.deliveries import Delivery, Hook, MessageAnswered, MessageFailed, Told
from chatflow_runtime.domain.reply import Notice, OutboxItem, Reply
from chatflow_runtime.domain.texts import Texts
from chatflow_runtime.errors import (
    ChatFlowError,
    ClaimLost,
    ConversationBusy,
    Interrupted,
    InvalidMessage,
    LeaseLost,
    Shed,
    StateError,
    StateSchemaTooNew,
    StateUnavailable,
)
from chatflow_runtime.metrics import Channel
from chatflow_runtime.ownership import Ownership
from chatflow_runtime.ports import InboxReader, Taken

T = TypeVar("T")

_log = structlog.get_logger(__name__)

ATTEMPTS = 5
"""Failed attempts after which a message is given up."""
WORKERS = 10
"""Workers that may end while they answer a message; it is given up after as many."""
SUSPECT = 3
"""After as many a message is answered with no other such beside it: only the one that ends workers comes to ten."""
CONVERSATIONS = 32
"""Answered at the same time."""
HELD = 1024
"""Messages taken from inboxes and not answered yet, those of one user counted up to `USER_HELD`: a conversation that
is stuck leaves room for others."""
USER_HELD = 4
AT_ONCE = 8
"""Messages taken from one partition before the next has its turn."""
DRAIN_S = 20.0
"""Time for the answers under way when the worker is told to stop."""
LEAVE_S = 2.0
"""Time for those that were not finished by then to be given back."""
PAUSES_S = (0.5, 1.0, 2.0, 4.0)
"""Between attempts; the last one repeats."""


PASSING = (StateUnavailable, StateSchemaTooNew, ConversationBusy, ClaimLost, Shed)
"""Errors that say nothing about the message: it waits for as long as they last."""
FINAL = (Interrupted, InvalidMessage)
"""Errors that another attempt would not change."""


class WorkersEnded(Exception):
    """Every worker that began to answer the message ended over it."""


@dataclass
class _Desk(Desk):
    """What this worker has taken from one inbox, by user."""

    lanes: dict[str, deque[Taken]] = field(default_factory=dict)
    entries: set[str] = field(default_factory=set)
    """All that is in the lanes."""


class InboxWorker:
    """`ready` is awaited before the first answer, and again before each: it returns once answers have what they need.
    `wait` is asyncio.sleep, unless a test hands in its own. `is_told`: whether a webhook hears of replies and
    failures."""

    def __init__(
        self,
        reader: InboxReader,
        ownership: Ownership,
        counted: Counted,
        texts: Texts,
        ready: Callable[[], Awaitable[None]],
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
        *,
        is_told: bool = False,
    ) -> None:
        self._reader = reader
        self._ownership = ownership
        self._counted = counted
        self._texts = texts
        self._ready = ready
        self._wait = wait
        self._is_told = is_told
        self._desks = Desks("inbox", ownership, _Desk)
        self._slots = asyncio.Semaphore(CONVERSATIONS)
        self._suspects = asyncio.Lock()
        self._held = 0
        self._lanes: set[asyncio.Task[None]] = set()

    def wake(self, partition: int | None = None) -> None:
        """Look into an inbox soon, or into all."""
        self._desks.wake(partition)

    async def run(self) -> None:
        """Work until cancelled; then finish the answers that are under way, and begin no others."""
        try:
            await self._desks.watch(self._is_emptied, has_room=lambda: self._held < HELD)
        finally:
            lanes = set(self._lanes)
            if lanes:
                await asyncio.wait(lanes, timeout=DRAIN_S)
            for lane in lanes:
                lane.cancel()
            if lanes:
                await asyncio.wait(lanes, timeout=LEAVE_S)

    async def _is_emptied(self, desk: _Desk) -> bool:
        """Take from one inbox; False when it may hold more."""
        try:
            if desk.is_rescanned:
                desk.is_rescanned = False
                # Also what it had answered already, if the state server failed over and has forgotten that.
                for one in await self._reader.left(desk.lease):
                    self._put(desk, one)
            taken = await self._reader.take(desk.lease, AT_ONCE)
        except StateError:
            # The server may have handed something out that did not arrive.
            desk.is_rescanned = True
            raise
        for one in taken:
            self._put(desk, one)
        return len(taken) < AT_ONCE

    def _put(self, desk: _Desk, taken: Taken) -> None:
        if taken.entry in desk.entries:
            return
        desk.entries.add(taken.entry)
        lane = desk.lanes.get(taken.uid)
        if lane is None:
            desk.lanes[taken.uid] = lane = deque()
            task = asyncio.create_task(self._walk(desk, taken.uid, lane))
            self._lanes.add(task)
            task.add_done_callback(self._lanes.discard)
        lane.append(taken)
        self._held += len(lane) <= USER_HELD

    async def _walk(self, desk: _Desk, uid: str, lane: deque[Taken]) -> None:
        """Answer what one user has said, one after the other. After a loss the rest is the next owner's."""
        try:
            while lane and not desk.is_lost:
                await self._settle(desk, lane[0])
                self._held -= len(lane) <= USER_HELD
                desk.entries.discard(lane.popleft().entry)
                self._desks.ring()
        except LeaseLost:
            self._desks.lose(desk)
        finally:
            if lane:
                # After a fault of this worker's own they are found again, before what is new.
                desk.entries.difference_update(one.entry for one in lane)
                desk.is_rescanned = True
            self._held -= min(len(lane), USER_HELD)
            del desk.lanes[uid]

    async def _settle(self, desk: _Desk, taken: Taken) -> None:
        """Answer one message, or give it up. LeaseLost when another worker has it by now."""
        lease, pauses = desk.lease, _pauses()
        failure: Exception = WorkersEnded(f"{taken.attempts} workers ended while they answered it")
        failures = ATTEMPTS if taken.attempts >= WORKERS else 0
        while failures < ATTEMPTS:
            try:
                item = await self._attempt(desk, taken)
            except LeaseLost:
                raise
            except Exception as error:  # noqa: BLE001  The edge: whatever it is, it must not hold up the others.
                failure = error
                failures += _weight(error)
                _log.warning("inbox.attempt_failed", message_id=taken.message_id, reason=_told(error))
            else:
                if item is None or await self._lasting(
                    partial(self._reader.done, lease, taken, self._answered(taken, item))
                ):
                    return
                _log.warning("inbox.reply_lost", message_id=taken.message_id, partition=lease.partition)
            if failures < ATTEMPTS:
                await self._wait(next(pauses))
        text = self._texts.interrupted if isinstance(failure, Interrupted) else self._texts.failed
        notice = Notice("failed", text, self._counted.clock.now_ms(), taken.message_id)
        failed = self._delivery(MessageFailed(taken.uid, taken.message_id, notice))
        await self._lasting(lambda: self._reader.bury(lease, taken, _told(failure), notice, failed))
        self._counted.metrics.dead_letter(_code(failure))
        _log.error("inbox.given_up", message_id=taken.message_id, partition=lease.partition, reason=_told(failure))

    def _answered(self, taken: Taken, item: OutboxItem) -> Delivery | None:
        if not isinstance(item.item, Reply):
            return None
        return self._delivery(MessageAnswered(taken.uid, taken.message_id, item.id, item.item))

    def _delivery(self, told: Told) -> Delivery | None:
        return Delivery(Hook.MESSAGES, told, self._counted.clock.now_ms()) if self._is_told else None

    async def _attempt(self, desk: _Desk, taken: Taken) -> OutboxItem | None:
        """The reply to a message; None when that is no longer this worker's to answer."""
        async with self._suspects if taken.attempts >= SUSPECT else contextlib.nullcontext(), self._slots:
            if desk.is_lost:
                raise LeaseLost(f"partition {desk.lease.partition} is handed on")
            await self._ready()
            try:
                letter = await self._reader.begin(desk.lease, taken)
                if letter is None:
                    return None
                return await self._counted.answer(Channel.MESSAGES, letter.uid, letter.message_id, letter.text)
            except BaseException:
                with contextlib.suppress(LeaseLost, StateError):
                    await asyncio.shield(self._reader.ended(desk.lease, taken))
                raise

    async def _lasting(self, step: Callable[[], Awaitable[T]]) -> T:
        """Do something however long the state server is away."""
        pauses = _pauses()
        while True:
            try:
                return await step()
            except StateError:
                await self._wait(next(pauses))


def _pauses() -> Iterator[float]:
    return itertools.chain(PAUSES_S, itertools.repeat(PAUSES_S[-1]))


def _weight(error: Exception) -> int:
    """How many failed attempts an error counts for."""
    if isinstance(error, FINAL):
        return ATTEMPTS
    return 0 if isinstance(error, PASSING) else 1


def _code(error: Exception) -> str:
    if isinstance(error, WorkersEnded):
        return "workers_ended"
    return error.code if isinstance(error, ChatFlowError) else ChatFlowError.code


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
