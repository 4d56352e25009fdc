"""One turn of a conversation, start to end: load and classify at the same time, respond, commit once.

Called by every channel in `web`; knows no protocol, no server and no Redis. A turn owns its message by a claim with a
lease: whoever loses it before the first delta decides again, and after it never sends another answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import assert_never

import structlog
from chatflow_api.v1alpha1 import WhileBusy
from msgspec.structs import replace

from chatflow_runtime.answerers.dispatch import Dispatcher, Question
from chatflow_runtime.domain.admission import Admission
from chatflow_runtime.domain.concurrency import Priority
from chatflow_runtime.domain.conversation import Conversation, Message
from chatflow_runtime.domain.ladder import priority_of
from chatflow_runtime.domain.moderation import Moderator
from chatflow_runtime.domain.normalisation import normalise
from chatflow_runtime.domain.reply import OutboxItem
from chatflow_runtime.errors import (
    ClaimLost,
    ConversationBusy,
    Interrupted,
    InvalidMessage,
    Overtaken,
    RateLimited,
    Shed,
    StateError,
)
from chatflow_runtime.metrics import CacheResult, Classified, Metrics
from chatflow_runtime.ports import (
    UNKNOWN,
    UNMETERED,
    Answered,
    Claimed,
    Classification,
    Classifier,
    ConversationStore,
    Entry,
    Loaded,
    Rejected,
    Turn,
    Waiting,
)
from chatflow_runtime.sink import DeltaSink

log = structlog.get_logger()

RENEW_S = 1.0
"""Pause between lease renewals; the store's lease is several times as long."""
MAX_ATTEMPTS = 3
"""How often a turn whose claim was lost before its first delta is decided."""


class _Pieces:
    """Passes pieces on and remembers whether there were any."""

    def __init__(self, sink: DeltaSink) -> None:
        self._sink = sink
        self.has_begun = False

    async def delta(self, text: str) -> None:
        self.has_begun = True
        await self._sink.delta(text)


@dataclass
class TurnRunner:
    """Answers the messages of one flow."""

    store: ConversationStore
    classifier: Classifier
    dispatcher: Dispatcher
    moderator: Moderator
    metrics: Metrics
    new_owner: Callable[[], str]
    """A token that no other attempt has."""
    max_wait_s: float
    """Longest wait in the queue behind earlier messages."""
    admission: Admission
    """Whether new conversations may begin."""

    async def answer(
        self,
        uid: str,
        message_id: str,
        text: str,
        sink: DeltaSink | None = None,
        history: tuple[Message, ...] | None = None,
        entry: Entry = UNMETERED,
    ) -> OutboxItem:
        """The committed reply. The deltas sent to `sink` join to the reply's text, unless nothing was streamed.

        `history` stands in for the stored one (clients of the OpenAI protocol send it along). Raises ChatFlowError.
        """
        normalised = normalise(text)
        if not normalised:
            raise InvalidMessage("text holds no visible character; send the user's words")
        verdict = self.moderator.check(normalised)
        if history is not None:
            history = tuple(map(self._moderated, history))
        pieces = None if sink is None else _Pieces(sink)
        self.admission.under_way += 1
        try:
            for attempt in range(MAX_ATTEMPTS):
                counts = entry if attempt == 0 else UNMETERED
                turn = Turn(uid, message_id, self.new_owner(), verdict.text, counts.is_metered, counts.address)
                try:
                    return await self._attempt(turn, verdict.is_refused, pieces, history)
                except ClaimLost as error:
                    if pieces is not None and pieces.has_begun:
                        raise
                    self.metrics.claim_lost()
                    lost = error
            raise lost
        finally:
            self.admission.under_way -= 1

    def _moderated(self, message: Message) -> Message:
        """A message that a client sent along, as the stored history would hold it."""
        return replace(message, text=self.moderator.check(message.text).text)

    async def _attempt(
        self, turn: Turn, is_refused: bool, sink: _Pieces | None, history: tuple[Message, ...] | None
    ) -> OutboxItem:
        loading = asyncio.ensure_future(self.store.load(turn))
        try:
            question = await self._question(turn, is_refused)
            loaded = await loading
        except RateLimited:
            raise
        except BaseException:
            loading.cancel()
            # The claim may be taken by now: by a load under way, or by one whose value cannot be read.
            await asyncio.shield(self._release(turn))
            raise
        if isinstance(loaded, Waiting):
            loaded = await self._wait(turn)
        match loaded:
            case Answered(item):
                return item
            case Rejected(scene):
                raise ConversationBusy(
                    f"the last message of this conversation is still being answered (scene {scene});"
                    " send this one again once the reply is there"
                )
            case Claimed(conversation):
                return await self._owned(turn, question, conversation, sink, history)
            case Waiting():
                raise ConversationBusy(f"earlier messages took longer than {self.max_wait_s:g} s; send this one again")
            case _:
                assert_never(loaded)

    async def _question(self, turn: Turn, is_refused: bool) -> Question:
        revision = self._revision(self.classifier.version)
        question = Question(turn.uid, turn.message_id, turn.text, revision, UNKNOWN, is_refused=is_refused)
        if is_refused:
            return question
        cached, found_in = self.dispatcher.cache.get(revision, turn.text), CacheResult.HIT
        if cached is None:
            # It travels beside the load, and spares a classification and a search where another gateway has made them.
            cached, found_in = await self.dispatcher.cache.find(revision, turn.text), CacheResult.SHARED
        self.metrics.cache_lookup(CacheResult.MISS if cached is None else found_in)
        if cached is not None:
            return replace(question, cached=cached)
        found = await self._classify(turn.text)
        if found.is_missed:
            return replace(question, classification=found, revision=None)
        if found.version is not None:
            revision = self._revision(found.version)
        return replace(question, classification=found, revision=revision)

    def _revision(self, model: str) -> str:
        return f"{model}/{self.dispatcher.retriever.revision}"

    async def _classify(self, text: str) -> Classification:
        began_s = self.dispatcher.clock.monotonic_s()
        found = await self.classifier.classify(text)
        if found is not UNKNOWN:
            self.metrics.classified(self._outcome(found), self.dispatcher.clock.monotonic_s() - began_s)
        return found

    def _outcome(self, found: Classification) -> Classified:
        if found.is_missed:
            return Classified.MISSED
        is_sure = found.is_in_scope and found.confidence > self.dispatcher.rules.confidence
        return Classified.SURE if is_sure else Classified.UNSURE

    async def _wait(self, turn: Turn) -> Loaded:
        """Load again at each wake-up until the message is answered, claimed or refused, or the patience ends."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self.max_wait_s
        with self.store.watch(turn.uid) as watch:
            while True:
                loaded = await self.store.load(turn)
                if not isinstance(loaded, Waiting) or loop.time() >= deadline_s:
                    return loaded
                await watch.wait(loaded.retry_ms / 1000)

    async def _owned(
        self,
        turn: Turn,
        question: Question,
        conversation: Conversation,
        sink: _Pieces | None,
        history: tuple[Message, ...] | None,
    ) -> OutboxItem:
        try:
            if priority_of(conversation, history) is Priority.NEW and self.admission.turns_away(turn.uid):
                raise Shed(
                    f"{self.admission.backlog} turns are under way; new conversations wait, try again in a few seconds"
                )
            async with _Lease(self.store, turn):
                outcome = await self.dispatcher.respond(question, conversation, sink, history)
            committed = await self.store.commit(turn, conversation, outcome)
        except Shed:
            self.metrics.shed()
            await asyncio.shield(self._release(turn))
            raise
        except Overtaken:
            if self._is_interruptible(conversation):
                raise Interrupted("a newer message of this conversation has taken over") from None
            raise
        except ClaimLost:
            raise
        except BaseException:
            await asyncio.shield(self._release(turn))
            raise
        return committed.item

    def _is_interruptible(self, conversation: Conversation) -> bool:
        policies = self.dispatcher.config.dialogue.while_busy
        return policies.get(conversation.scene.value) is WhileBusy.INTERRUPT

    async def _release(self, turn: Turn) -> None:
        """Let others at the message at once; where that fails, the lease runs out by itself."""
        try:
            await self.store.release(turn)
        except StateError as error:
            log.warning("release_failed", code=error.code, reason=str(error))


class _Lease:
    """Renews a claim while its turn takes long. Losing it cancels the turn, which then raises ClaimLost.

    Nothing but a timer exists until the first renewal: most turns are over long before.
    """

    def __init__(self, store: ConversationStore, turn: Turn) -> None:
        self._store = store
        self._turn = turn
        self._renewal: asyncio.Task[None] | None = None
        self._lost: ClaimLost | None = None

    async def __aenter__(self) -> None:
        self._owner = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(RENEW_S, self._begin)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._renewal is not None:
            self._renewal.cancel()
        if self._lost is not None and isinstance(error, asyncio.CancelledError) and self._owner is not None:
            self._owner.uncancel()
            raise self._lost from None

    def _begin(self) -> None:
        self._renewal = asyncio.ensure_future(self._renew())

    async def _renew(self) -> None:
        while True:
            try:
                await self._store.renew(self._turn)
            except ClaimLost as error:
                self._lost = error
                if self._owner is not None:
                    self._owner.cancel()
                return
            except StateError as error:
                log.warning("renewal_failed", code=error.code, reason=str(error))
            await asyncio.sleep(RENEW_S)
