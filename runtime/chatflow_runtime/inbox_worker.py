"""Answers the messages that gateways have accepted for later, those of one conversation in their order.

Runs beside `worker` on the partitions that it owns. A message leaves its inbox once its reply is in the outbox; until
then whoever has the partition next begins with it, and the turn's claim and the message id see to one answer.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

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
    LeaseLost,
    Shed,
    StateError,
    StateSchemaTooNew,
    StateUnavailable,
)
from chatflow_runtime.metrics import Channel
from chatflow_runtime.ownership import Ownership
from chatflow_runtime.ports import InboxReader, Letter, Taken

_log = structlog.get_logger(__name__)

ATTEMPTS = 5
"""Failed attempts after which a message is given up."""
HANDED_OUT = 10
"""Times that a message is handed out: by then it has most likely ended that many workers."""
CONVERSATIONS = 32
"""Answered at the same time."""
HELD = 256
"""Messages taken from inboxes and not answered yet."""
DRAIN_S = 20.0
"""Time for the answers under way when the worker is told to stop."""
PAUSES_S = (0.5, 1.0, 2.0, 4.0)
"""Between attempts; the last one repeats."""


PASSING = (StateUnavailable, StateSchemaTooNew, ConversationBusy, ClaimLost, Shed)
"""Errors that say nothing about the message: it waits for as long as they last."""


class HandedOutTooOften(Exception):
    """Every worker that had the message ended before it was answered."""


@dataclass
class _Desk(Desk):
    """What this worker has taken from one inbox, by user."""

    lanes: dict[str, deque[Taken]] = field(default_factory=dict)
    entries: set[str] = field(default_factory=set)
    """All that is in the lanes."""
    has_asked: bool = False
    """Whether what was taken and not answered, by others or on the way to this worker, is in the lanes."""


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
        self._held = 0
        self._lanes: set[asyncio.Task[None]] = set()

    def wake(self, partition: int | None = None) -> None:
        """Look into an inbox soon, or into all."""
        self._desks.wake(partition)

    async def run(self) -> None:
        """Work until cancelled; then finish the answers that are under way, and begin no others."""
        try:
            await self._desks.watch(self._is_emptied)
        finally:
            if self._lanes:
                await asyncio.wait(self._lanes, timeout=DRAIN_S)
            for lane in self._lanes:
                lane.cancel()

    async def _is_emptied(self, desk: _Desk) -> bool:
        """Take from one inbox; False when it may hold more than there was room for."""
        try:
            if not desk.has_asked:
                for one in await self._reader.left(desk.lease):
                    self._put(desk, one)
                desk.has_asked = True
            while (room := HELD - self._held) > 0:
                taken = await self._reader.take(desk.lease, room)
                for one in taken:
                    self._put(desk, one)
                if len(taken) < room:
                    return True
        except StateError:
            # The server may have handed something out that did not arrive.
            desk.has_asked = False
            raise
        return False

    def _put(self, desk: _Desk, taken: Taken) -> None:
        if taken.entry in desk.entries:
            return
        desk.entries.add(taken.entry)
        self._held += 1
        lane = desk.lanes.get(taken.letter.uid)
        if lane is not None:
            lane.append(taken)
            return
        desk.lanes[taken.letter.uid] = lane = deque([taken])
        task = asyncio.create_task(self._walk(desk, lane))
        self._lanes.add(task)
        task.add_done_callback(self._lanes.discard)

    async def _walk(self, desk: _Desk, lane: deque[Taken]) -> None:
        """Answer what one user has said, one after the other. After a loss the rest is the next owner's."""
        uid = lane[0].letter.uid
        try:
            while lane and not desk.is_lost:
                await self._settle(desk, lane[0])
                desk.entries.discard(lane.popleft().entry)
                self._held -= 1
                self._desks.ring()
        except LeaseLost:
            self._desks.lose(desk)
        finally:
            self._held -= len(lane)
            del desk.lanes[uid]

    async def _settle(self, desk: _Desk, taken: Taken) -> None:
        """Answer one message, or give it up. LeaseLost when another worker has it by now."""
        lease, letter, pauses = desk.lease, taken.letter, _pauses()
        failure: Exception = HandedOutTooOften(f"handed out {taken.times} times without an answer")
        failures = 0 if taken.times <= HANDED_OUT else ATTEMPTS
        while failures < ATTEMPTS:
            try:
                item = await self._answer(desk, letter)
            except LeaseLost:
                raise
            except Exception as error:  # noqa: BLE001  The edge: whatever it is, it must not hold up the others.
                failure = error
                failures += _weight(error)
                _log.warning("inbox.attempt_failed", message_id=letter.message_id, reason=_told(error))
            else:
                await self._lasting(partial(self._reader.done, lease, taken, self._answered(letter, item)))
                return
            if failures < ATTEMPTS:
                await self._wait(next(pauses))
        text = self._texts.interrupted if isinstance(failure, Interrupted) else self._texts.failed
        notice = Notice("failed", text, self._counted.clock.now_ms(), letter.message_id)
        failed = self._delivery(MessageFailed(letter.uid, letter.message_id, notice))
        await self._lasting(lambda: self._reader.bury(lease, taken, _told(failure), notice, failed))
        self._counted.metrics.dead_letter(_code(failure))
        _log.error("inbox.given_up", message_id=letter.message_id, partition=lease.partition, reason=_told(failure))

    def _answered(self, letter: Letter, item: OutboxItem) -> Delivery | None:
        if not isinstance(item.item, Reply):
            return None
        return self._delivery(MessageAnswered(letter.uid, letter.message_id, item.id, item.item))

    def _delivery(self, told: Told) -> Delivery | None:
        return Delivery(Hook.MESSAGES, told, self._counted.clock.now_ms()) if self._is_told else None

    async def _answer(self, desk: _Desk, letter: Letter) -> OutboxItem:
        async with self._slots:
            if desk.is_lost:
                raise LeaseLost(f"partition {desk.lease.partition} is handed on")
            await self._ready()
            return await self._counted.answer(Channel.MESSAGES, letter.uid, letter.message_id, letter.text)

    async def _lasting(self, step: Callable[[], Awaitable[None]]) -> None:
        """Do something however long the state server is away."""
        pauses = _pauses()
        while True:
            try:
                await step()
                return
            except StateError:
                await self._wait(next(pauses))


def _pauses() -> Iterator[float]:
    return itertools.chain(PAUSES_S, itertools.repeat(PAUSES_S[-1]))


def _weight(error: Exception) -> int:
    """How many failed attempts an error counts for."""
    if isinstance(error, Interrupted):
        return ATTEMPTS
    return 0 if isinstance(error, PASSING) else 1


def _code(error: Exception) -> str:
    if isinstance(error, HandedOutTooOften):
        return "handed_out_too_often"
    return error.code if isinstance(error, ChatFlowError) else ChatFlowError.code


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
