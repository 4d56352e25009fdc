"""The in-memory twin of the Redis stores: the same rules without a server, for tests of whatever stands on the ports.

Time comes from the injected clock. Nothing expires by itself: keys that a server would drop stay.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import msgspec
from chatflow_api import names
from chatflow_api.v1alpha1 import WhileBusy

from chatflow_runtime.domain.conversation import Conversation, Event, Memory, Message, Scene, next_scene
from chatflow_runtime.domain.deliveries import Delivery
from chatflow_runtime.domain.handoff import timed_out
from chatflow_runtime.domain.rate import Rate, charge
from chatflow_runtime.domain.reply import Notice, OutboxItem, Reply
from chatflow_runtime.errors import ClaimLost, NotHandedOver, Overtaken, RateLimited
from chatflow_runtime.ports import (
    Answered,
    Claimed,
    Clock,
    Committed,
    Handoff,
    Loaded,
    NoticeText,
    Outcome,
    Record,
    Rejected,
    Turn,
    Wait,
    Waiting,
    Watch,
    Word,
)
from chatflow_runtime.state.memory_hooks import HookStreams
from chatflow_runtime.state.rules import Rules
from chatflow_runtime.state.stream_id import StreamId
from chatflow_runtime.state.wakeups import Watches


@dataclass(slots=True)
class _Claim:
    message_id: str
    owner: str
    until_ms: int
    entry: Message | None
    """None when the history holds the message already."""


@dataclass(slots=True)
class _Seen:
    """What became of a message id: answered under an outbox id, or unanswered in a generation's history."""

    revision: int
    answered: str | None = None
    unanswered_in: int | None = None


@dataclass(slots=True)
class _User:
    scene: Scene = Scene.GREETING
    revision: int = 0
    generation: int = 0
    memory: Memory = field(default_factory=Memory)
    deadline_ms: int = 0
    is_notified: bool = False
    claim: _Claim | None = None
    queue: dict[str, int] = field(default_factory=dict)
    history: list[Message] = field(default_factory=list)
    outbox: list[OutboxItem] = field(default_factory=list)
    seen: dict[str, _Seen] = field(default_factory=dict)
    handoff: str | None = None
    words: dict[str, str] = field(default_factory=dict)
    """Outbox ids of what a person said, by the person's message ids."""


class MemoryStore:
    """ConversationStore and DueStore in one."""

    def __init__(self, rules: Rules, clock: Clock, notice_text: NoticeText) -> None:
        self._rules = rules
        self._clock = clock
        self._notice_text = notice_text
        self._users: dict[str, _User] = {}
        self._due: dict[int, dict[str, int]] = {}
        self._records: dict[int, list[Record]] = {}
        self._watches = Watches()
        self.hooks = HookStreams(rules)
        """What webhooks are to be told."""
        self._last_id = StreamId(0, 0)
        self._rates: dict[str, float] = {}

    async def load(self, turn: Turn) -> Loaded:
        """Claim the turn and read the conversation, or tell why not."""
        if turn.address is not None:
            await self.meter_address(turn.address)
        user = self._users.setdefault(turn.uid, _User())
        now_ms = self._clock.now_ms()
        seen = user.seen.get(turn.message_id)
        if seen is not None and seen.revision <= user.revision - self._rules.outbox_items:
            del user.seen[turn.message_id]
            seen = None
        if seen is not None and seen.answered is not None:
            for item in user.outbox:
                if item.id == seen.answered:
                    return Answered(item)
        user.queue = {waiter: until_ms for waiter, until_ms in user.queue.items() if until_ms > now_ms}
        is_known = turn.message_id in user.queue or (
            user.claim is not None and user.claim.message_id == turn.message_id
        )
        if turn.is_metered and seen is None and not is_known:
            await self.meter_user(turn.uid)
        held = user.claim if user.claim is not None and user.claim.until_ms > now_ms else None
        if held is not None and held.message_id == turn.message_id:
            if held.owner != turn.owner:
                return Waiting(Wait.ATTACHED, min(self._rules.retry_ms, held.until_ms - now_ms))
        elif held is not None or (user.queue and next(iter(user.queue)) != turn.message_id):
            free_ms = (held.until_ms if held is not None else next(iter(user.queue.values()))) - now_ms
            was_interrupted = seen is not None and seen.unanswered_in is not None
            wait = self._wait(user, turn.message_id, free_ms, was_interrupted)
            if wait is not None:
                return wait
        return self._claim(user, turn, now_ms)

    async def renew(self, turn: Turn) -> None:
        """Extend the lease; ClaimLost when another attempt has taken over."""
        self._owned(turn).until_ms = self._clock.now_ms() + self._rules.lease_ms

    async def commit(self, turn: Turn, conversation: Conversation, outcome: Outcome) -> Committed:
        """Move the scene, append message and reply to the history, the reply to the outbox; ClaimLost when the claim or
        the revision is not the loaded one."""
        claim = self._owned(turn)
        user = self._users[turn.uid]
        if user.revision != conversation.revision:
            raise ClaimLost(f"message {turn.message_id!r}: the conversation has moved on; load it again")
        now_ms = self._clock.now_ms()
        if claim.entry is not None:
            self._remember(user, claim.entry)
        if outcome.reply.text:
            self._remember(user, Message("assistant", outcome.reply.text, now_ms, turn.message_id))
        item = self._send(user, outcome.reply)
        user.revision += 1
        user.seen[turn.message_id] = _Seen(user.revision, answered=item.id)
        if user.revision % self._rules.tidy_turns == 0:
            del user.outbox[: -self._rules.outbox_items]
        user.memory, user.claim, user.is_notified = outcome.memory, None, False
        self._move(turn.uid, user, outcome.event)
        if user.scene is not Scene.END:
            user.deadline_ms = now_ms + self._rules.ttl_ms
            self._due_of(turn.uid)[turn.uid] = user.deadline_ms - self._rules.notice_ms
        if outcome.delivery is not None:
            self.tell(turn.uid, outcome.delivery)
            if user.scene is Scene.HANDOFF:
                user.handoff = outcome.delivery.handoff_id or user.handoff
        for record in outcome.records:
            self._keep(turn.uid, record)
        self._watches.wake(turn.uid)
        return Committed(item=item, revision=user.revision)

    async def release(self, turn: Turn) -> None:
        """Give the claim up with nothing written; does nothing when it is lost already."""
        try:
            self._owned(turn)
        except ClaimLost:
            return
        self._users[turn.uid].claim = None
        self._watches.wake(turn.uid)

    async def history(self, uid: str) -> tuple[Message, ...]:
        """The last messages, oldest first."""
        user = self._users.get(uid)
        return () if user is None else tuple(user.history)

    async def outbox(self, uid: str, after: str, limit: int = 100) -> Sequence[OutboxItem]:
        """Entries after a stream id (`0` for all that is kept), oldest first; InvalidMessage when it is none."""
        first = StreamId.of(after)
        user = self._users.get(uid, _User())
        return [item for item in user.outbox if StreamId.of(item.id) > first][:limit]

    def watch(self, uid: str) -> AbstractContextManager[Watch]:
        """Wake-ups of a user while the context lasts."""
        return self._watches.watch(uid)

    async def rate(self, uid: str, record: Record) -> Scene:
        """Keep a rating; ends the conversation when it was asked for one. Returns the scene."""
        self._keep(uid, record)
        user = self._users.get(uid, _User())
        self._move(uid, user, Event.RATED)
        return user.scene

    async def meter_user(self, uid: str) -> None:
        """Charge a request that is no message to the user's rate; RateLimited."""
        if retry_ms := self.charge(f"user {uid}", self._rules.user_rate):
            raise RateLimited("this user", retry_ms)

    async def meter_address(self, address: str) -> None:
        """Charge a request to the rate of the client address that it comes from; RateLimited."""
        if retry_ms := self.charge(f"address {address}", self._rules.address_rate):
            raise RateLimited("this address", retry_ms)

    def charge(self, key: str, rate: Rate) -> int:
        """The ms until it is worth trying again; 0 when the rate allows it."""
        if not rate.is_limited:
            return 0
        due_ms, retry_ms = charge(rate, self._rates.get(key), self._clock.now_ms())
        if due_ms is not None:
            self._rates[key] = due_ms
        return retry_ms

    async def ping(self) -> None:
        """Nothing to reach, so nothing fails."""

    async def sweep(self, partition: int) -> int:
        """Send the closing notices and end the conversations that are due; how many were touched."""
        now_ms = self._clock.now_ms()
        due = self._due.get(partition, {})
        return sum(self._settle(uid, now_ms) for uid, at_ms in sorted(due.items()) if at_ms <= now_ms)

    async def records(self, partition: int, limit: int) -> Sequence[Record]:
        """Records not yet discarded, oldest first."""
        return self._records.get(partition, [])[:limit]

    async def discard(self, partition: int, records: Sequence[Record]) -> None:
        """Remove records that a sink has kept."""
        gone = {record.id for record in records}
        self._records[partition] = [record for record in self._records.get(partition, []) if record.id not in gone]

    def _wait(self, user: _User, message_id: str, free_ms: int, was_interrupted: bool) -> Loaded | None:
        """The place of a message that comes while another is under way; None when it may interrupt."""
        policy = self._rules.while_busy[user.scene]
        if policy is WhileBusy.INTERRUPT and not was_interrupted:
            return None
        if message_id not in user.queue and (policy is WhileBusy.REJECT or len(user.queue) >= self._rules.waiters):
            return Rejected(user.scene)
        user.queue[message_id] = self._clock.now_ms() + self._rules.waiter_ms
        return Waiting(Wait.QUEUED, min(self._rules.retry_ms, free_ms))

    def _claim(self, user: _User, turn: Turn, now_ms: int) -> Claimed:
        user.queue.pop(turn.message_id, None)
        if user.scene is Scene.END or (0 < user.deadline_ms <= now_ms and user.handoff is None):
            user.scene, user.memory, user.deadline_ms, user.is_notified = Scene.GREETING, Memory(), 0, False
            user.generation += 1
            user.history.clear()
        old = user.claim
        if old is not None and old.message_id != turn.message_id:
            if old.entry is not None:
                self._remember(user, old.entry)
                user.seen[old.message_id] = _Seen(user.revision, unanswered_in=user.generation)
            self._watches.wake(turn.uid)
        seen = user.seen.get(turn.message_id)
        entry = None
        if seen is None or seen.unanswered_in != user.generation:
            entry = Message("user", turn.text, now_ms, turn.message_id)
        user.claim = _Claim(turn.message_id, turn.owner, now_ms + self._rules.lease_ms, entry)
        return Claimed(Conversation(user.scene, user.revision, user.memory, tuple(user.history), user.handoff))

    def _owned(self, turn: Turn) -> _Claim:
        user = self._users.get(turn.uid, _User())
        claim = user.claim
        if claim is None or (claim.message_id, claim.owner) != (turn.message_id, turn.owner):
            seen = user.seen.get(turn.message_id)
            is_again = claim is not None and claim.message_id == turn.message_id
            if not is_again and seen is not None and seen.unanswered_in is not None:
                raise Overtaken(f"message {turn.message_id!r} of {turn.uid!r}: a newer message has taken over")
            raise ClaimLost(f"message {turn.message_id!r} of {turn.uid!r} was taken over; load it again")
        return claim

    def _settle(self, uid: str, now_ms: int) -> bool:
        user, due = self._users[uid], self._due_of(uid)
        busy_ms = max([user.claim.until_ms if user.claim is not None else 0, *user.queue.values()])
        if user.scene is Scene.END or user.deadline_ms == 0:
            del due[uid]
        elif busy_ms > now_ms:
            due[uid] = busy_ms
        elif user.deadline_ms <= now_ms:
            del due[uid]
            user.scene = next_scene(user.scene, Event.TIMED_OUT)
            self._end_handoff(uid, user, timed_out(uid, now_ms))
            self.notify(uid, Notice("ended", self._notice_text("ended", 0), now_ms))
            return True
        elif self._rules.notice_ms > 0 and not user.is_notified and user.deadline_ms - self._rules.notice_ms <= now_ms:
            due[uid] = user.deadline_ms
            user.is_notified = True
            self.notify(uid, Notice("closing", self._notice_text("closing", self._left_s(user, now_ms)), now_ms))
            return True
        else:
            due[uid] = user.deadline_ms - (0 if user.is_notified else self._rules.notice_ms)
        return False

    def _left_s(self, user: _User, now_ms: int) -> int:
        """The seconds that a closing notice names: those of the manifest, unless they would be wrong."""
        left_ms, planned_s = user.deadline_ms - now_ms, math.ceil(self._rules.notice_ms / 1000)
        is_near = abs(left_ms - planned_s * 1000) <= self._rules.notice_slack_ms
        return planned_s if is_near else math.ceil(left_ms / 1000)

    def notify(self, uid: str, notice: Notice) -> str:
        """Put a notice into a user's outbox, for the twin of the inbox; its id there."""
        item = self._send(self._users.setdefault(uid, _User()), notice)
        self._watches.wake(uid)
        return item.id

    def tell(self, uid: str, delivery: Delivery | None) -> None:
        """Leave word for a webhook where there is any, for the twin of the inbox."""
        if delivery is not None:
            self.hooks.tell(uid, delivery, str(self._next_id()))

    def speak(self, word: Word, end: Delivery) -> str:
        """What a person says or does, for the twin of the handoffs."""
        user = self._users.get(word.uid, _User())
        if word.field in user.words:
            return user.words[word.field]
        if user.handoff is None or word.handoff_id not in (None, user.handoff):
            raise NotHandedOver(user.scene, word.handoff_id)
        if word.text:
            at_ms = word.notice.at_ms
            self._remember(user, Message("assistant", word.text, at_ms, word.message_id, word.agent))
        user.words[word.field] = self._send(user, word.notice).id
        if word.ends:
            user.scene = next_scene(user.scene, Event.RETURNED)
            self._end_handoff(word.uid, user, end)
        user.deadline_ms, user.is_notified = self._clock.now_ms() + self._rules.ttl_ms, False
        self._due_of(word.uid)[word.uid] = user.deadline_ms - self._rules.notice_ms
        self._watches.wake(word.uid)
        return user.words[word.field]

    def handoff(self, uid: str) -> Handoff:
        """Where a conversation stands, for the twin of the handoffs."""
        user = self._users.get(uid, _User())
        return Handoff(user.scene, user.handoff, tuple(user.history))

    def _end_handoff(self, uid: str, user: _User, end: Delivery) -> None:
        if user.handoff is not None:
            self.tell(uid, msgspec.structs.replace(end, handoff_id=user.handoff))
            user.handoff = None
            if user.claim is not None:
                user.claim.owner, user.claim.until_ms = "", 0

    def answered_at(self, uid: str, message_id: str) -> str | None:
        """The outbox id of the reply to a message, for the twin of the inbox."""
        seen = self._users.get(uid, _User()).seen.get(message_id)
        return None if seen is None else seen.answered

    def _move(self, uid: str, user: _User, event: Event) -> None:
        user.scene = next_scene(user.scene, event)
        if user.scene is Scene.END:
            user.deadline_ms = 0
            self._due_of(uid).pop(uid, None)

    def _remember(self, user: _User, message: Message) -> None:
        user.history.append(message)
        del user.history[: -self._rules.history_messages]

    def _send(self, user: _User, item: Reply | Notice) -> OutboxItem:
        entry = OutboxItem(id=str(self._next_id()), item=item)
        user.outbox.append(entry)
        return entry

    def _keep(self, uid: str, record: Record) -> None:
        kept = self._records.setdefault(names.partition(uid), [])
        kept.append(msgspec.structs.replace(record, id=str(self._next_id())))
        del kept[: -self._rules.partition_records]

    def _due_of(self, uid: str) -> dict[str, int]:
        return self._due.setdefault(names.partition(uid), {})

    def _next_id(self) -> StreamId:
        self._last_id = self._last_id.following(self._clock.now_ms())
        return self._last_id
