"""What a turn needs from the outside, as Protocols. `adapters` and `state` implement them, `bootstrap` wires them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, Protocol

import msgspec
import numpy as np
from chatflow_api.runtime_config import ActionConfig
from numpy.typing import NDArray

from chatflow_runtime.domain.conversation import Conversation, Event, Memory, Message, Scene
from chatflow_runtime.domain.deliveries import Delivery, Hook
from chatflow_runtime.domain.prompt import ChatMessage
from chatflow_runtime.domain.reply import Citation, Notice, OutboxItem, Reply, Usage

Vector = NDArray[np.float32]
"""A text's embedding: shape (d,), L2-normalised."""


class Classification(msgspec.Struct, frozen=True):
    """What a text wants. `confidence` is the calibrated probability of `intent`; the embedding serves retrieval."""

    intent: str | None
    confidence: float
    is_in_scope: bool
    alternatives: tuple[tuple[str, float], ...] = ()
    embedding: Vector | None = None
    version: str | None = None
    """Of the model that says so, where several may answer; None: the classifier's own."""
    is_missed: bool = False
    """Stands for one that did not come in time: what is answered on it is not kept for others."""


UNKNOWN = Classification(intent=None, confidence=0.0, is_in_scope=False)
"""The classification of a flow without intents."""
MISSED = Classification(intent=None, confidence=0.0, is_in_scope=False, is_missed=True)
"""Routed as UNKNOWN is: retrieval decides alone."""


class Classifier(Protocol):
    """Recognises intents. `version` names the model that answers."""

    @property
    def version(self) -> str: ...

    async def classify(self, text: str) -> Classification:
        """The classification of a normalised text."""


class Passage(msgspec.Struct, frozen=True):
    """A piece of knowledge that matches a question; `score` lies in 0 to 1 and is comparable across questions."""

    id: str
    title: str
    """The question of a pair, or the headings that lead to a chunk of a document."""
    text: str
    """The answer of a pair, or the chunk."""
    score: float
    kind: Literal["pair", "document"]
    source: str
    url: str | None = None
    intent: str | None = None

    def citation(self) -> Citation:
        """What a reply shows of it."""
        return Citation(id=self.id, title=self.title, score=round(self.score, 3), url=self.url)


class Query(msgspec.Struct, frozen=True):
    """A normalised question. Its likely `intents`, each with its probability, and `embedding` come from the
    classification."""

    text: str
    intents: tuple[tuple[str, float], ...] = ()
    embedding: Vector | None = None


class Retriever(Protocol):
    """Finds knowledge. `revision` changes with the content; the answer cache is scoped to it."""

    @property
    def revision(self) -> str: ...

    async def search(self, query: Query, top_k: int) -> Sequence[Passage]:
        """The best passages, best first; empty when nothing matches at all."""


class Delta(msgspec.Struct, frozen=True):
    """A piece of an answer's text."""

    text: str


class LanguageModel(Protocol):
    """A streaming chat model with its own deadlines. Raises ModelError; closing the iterator cancels the request."""

    @property
    def name(self) -> str: ...

    def stream(self, messages: Sequence[ChatMessage]) -> AsyncGenerator[Delta | Usage, None]:
        """The answer, piece by piece; a Usage comes at most once, last."""


class ActionResult(msgspec.Struct, frozen=True):
    """The API's answer: the decoded JSON body, or that it knows no such thing."""

    is_found: bool
    body: object = None


class ActionCaller(Protocol):
    """Calls business APIs."""

    async def call(self, action: ActionConfig, slots: Mapping[str, str], effect_id: str) -> ActionResult:
        """The result; ActionFailed when the API fails, is late or may not be called. `effect_id` names the
        effect across retries and goes out as Idempotency-Key."""


class Entry(msgspec.Struct, frozen=True):
    """How a message came in, as far as rate limits go."""

    is_metered: bool = True
    """Whether it counts towards the user's rate."""
    address: str | None = None
    """The client address towards whose rate it counts, if any."""


UNMETERED = Entry(is_metered=False)
"""Counts towards nothing: it was counted when it was accepted, or is no user's."""


class Turn(msgspec.Struct, frozen=True):
    """One attempt at one message. `owner` is a token of this attempt alone; `text` is what history will hold."""

    uid: str
    message_id: str
    owner: str
    text: str
    is_metered: bool = True
    address: str | None = None
    """As in `Entry`."""


class Claimed(msgspec.Struct, frozen=True):
    """This attempt owns the turn until its lease ends."""

    conversation: Conversation


class Answered(msgspec.Struct, frozen=True):
    """The message was answered before; the stored outbox item."""

    item: OutboxItem


class Wait(StrEnum):
    """Why a load has to be tried again."""

    ATTACHED = "attached"
    """Another attempt at the same message is under way."""
    QUEUED = "queued"
    """An earlier message is being answered; this one holds a place in the queue."""


class Waiting(msgspec.Struct, frozen=True):
    """Load again after the next wake-up of this user, or after `retry_ms` at the latest."""

    reason: Wait
    retry_ms: int


class Rejected(msgspec.Struct, frozen=True):
    """The scene's policy refuses a second message, or too many wait."""

    scene: Scene


Loaded = Claimed | Answered | Waiting | Rejected


class RecordKind(StrEnum):
    """What a record is for."""

    LABELLING = "labelling"
    RATING = "rating"


class Record(msgspec.Struct, frozen=True):
    """Something to be kept for people: a low-confidence question to label, or a rating."""

    kind: RecordKind
    uid: str
    at_ms: int
    fields: dict[str, str | float | int | None]
    id: str = ""
    """The stream id, set when read back; it lets a sink keep a record once."""


class Outcome(msgspec.Struct, frozen=True):
    """What a turn commits."""

    event: Event
    memory: Memory
    reply: Reply
    records: tuple[Record, ...] = ()
    delivery: Delivery | None = None
    """What a webhook is to be told of it. One that has a handoff's id begins that handoff, or goes on with it."""


class Committed(msgspec.Struct, frozen=True):
    """What a commit returns: the reply as stored, with its outbox id."""

    item: OutboxItem
    revision: int


class Watch(Protocol):
    """Wake-ups of one user."""

    async def wait(self, timeout_s: float) -> bool:
        """True after a wake-up since the last call (or since the watch began), False after the timeout."""


class ConversationStore(Protocol):
    """Conversation state: one load, one commit, each one atomic call. Raises StateError, ClaimLost."""

    async def load(self, turn: Turn) -> Loaded:
        """Claim the turn and read the conversation, or tell why not; RateLimited."""

    async def renew(self, turn: Turn) -> None:
        """Extend the lease; ClaimLost when another attempt has taken over."""

    async def commit(self, turn: Turn, conversation: Conversation, outcome: Outcome) -> Committed:
        """Move the scene, append message and reply to the history, the reply to the outbox; ClaimLost when the claim or
        the revision is not the loaded one."""

    async def release(self, turn: Turn) -> None:
        """Give the claim up with nothing written; does nothing when it is lost already."""

    async def history(self, uid: str) -> tuple[Message, ...]:
        """The last messages, oldest first."""

    async def outbox(self, uid: str, after: str, limit: int = 100) -> Sequence[OutboxItem]:
        """Entries after a stream id (`0` for all that is kept), oldest first."""

    def watch(self, uid: str) -> AbstractContextManager[Watch]:
        """Wake-ups of a user while the context lasts."""

    async def rate(self, uid: str, record: Record) -> Scene:
        """Keep a rating; ends the conversation when it was asked for one. Returns the scene."""

    async def meter_user(self, uid: str) -> None:
        """Charge a request that is no message to the user's rate; RateLimited."""

    async def meter_address(self, address: str) -> None:
        """Charge a request to the rate of the client address that it comes from; RateLimited."""

    async def ping(self) -> None:
        """StateUnavailable unless the server answers."""


class DueStore(Protocol):
    """What the worker does between turns, partition by partition."""

    async def sweep(self, partition: int) -> int:
        """Send the closing notices and end the conversations that are due; how many were touched. Safe to repeat."""

    async def records(self, partition: int, limit: int) -> Sequence[Record]:
        """Records not yet discarded, oldest first."""

    async def discard(self, partition: int, records: Sequence[Record]) -> None:
        """Remove records that a sink has kept."""


class Letter(msgspec.Struct, frozen=True):
    """A message that is answered later. `text` is what the user wrote."""

    uid: str
    message_id: str
    text: str
    at_ms: int


class Accepted(msgspec.Struct, frozen=True):
    """A message that will be answered, or was. Its reply comes in the outbox after `resume`, an outbox id; `position`
    messages of its inbox stand before it."""

    position: int
    resume: str


class Inbox(Protocol):
    """Takes messages that are answered later. Raises StateError."""

    async def accept(self, letter: Letter) -> Accepted:
        """Keep a message, once however often it is sent; InboxFull, ConversationBusy when too many wait already,
        RateLimited."""


class Taken(msgspec.Struct, frozen=True):
    """A message that a worker has to answer. `attempts` at it have begun and never ended, because their workers did."""

    entry: str
    uid: str
    message_id: str
    attempts: int = 0


class InboxReader(Protocol):
    """A partition's inbox, for the worker that has the partition under a token. Raises StateError; LeaseLost when
    another one has it by now."""

    async def left(self, lease: Lease) -> Sequence[Taken]:
        """What has been taken and not answered, by owners before and by this one, oldest first. To be asked for before
        anything is taken."""

    async def take(self, lease: Lease, limit: int) -> Sequence[Taken]:
        """New messages, oldest first."""

    async def begin(self, lease: Lease, taken: Taken) -> Letter | None:
        """Count an attempt at a message, and read it; None when it is no longer the worker's to answer.
        StateSchemaTooNew, StateError when it cannot be read."""

    async def ended(self, lease: Lease, taken: Taken) -> None:
        """The attempt has ended without an answer, and its worker goes on: it does not count."""

    async def done(self, lease: Lease, taken: Taken, delivery: Delivery | None = None) -> bool:
        """A message is answered, and a webhook to be told of it, once. False when the state server has lost the reply:
        it is still to be answered."""

    async def bury(
        self, lease: Lease, taken: Taken, reason: str, notice: Notice, delivery: Delivery | None = None
    ) -> None:
        """A message cannot be answered: keep it with the reason, tell the user, and a webhook."""


class Pending(msgspec.Struct, frozen=True):
    """Something that waits until a webhook has been told."""

    entry: str
    """A stream id, so it says since when."""
    hook: Hook
    uid: str


class HookReader(Protocol):
    """What webhooks of a partition are to be told, for the worker that has the partition under a token. Raises
    StateError; LeaseLost when another one has it by now."""

    async def waiting(self, lease: Lease, after: str | None, limit: int) -> Sequence[Pending]:
        """What waits, oldest first; from an entry on."""

    async def read(self, lease: Lease, pending: Pending) -> Delivery | None:
        """One of them; None when it has given way to newer ones."""

    async def sent(self, lease: Lease, pending: Pending, why: str | None = None) -> None:
        """One has been told; or is given up, and kept with the reason why."""


class Webhook(Protocol):
    """Whoever is told."""

    async def post(self, delivery_id: str, delivery: Delivery) -> None:
        """Tell it. DeliveryFailed when that is to be tried again, WebhookGone when it is not."""


class Word(msgspec.Struct, frozen=True):
    """What a person does in the place of the bot: say something, or with `ends` give the conversation back, with some
    last words or None."""

    uid: str
    message_id: str
    """The person's own id: it takes effect once."""
    text: str | None
    agent: str
    notice: Notice
    ends: bool = False
    handoff_id: str | None = None
    """In which handoff: its messages are numbered by themselves then. None for the one that lasts."""

    @property
    def field(self) -> str:
        """By which it is remembered. A space stands in no user's message id, so that it is never taken for one."""
        kind = "return" if self.ends else "agent"
        return f"{kind} {self.handoff_id or ''} {self.message_id}"


class Handoff(msgspec.Struct, frozen=True):
    """Where a conversation stands, for those who may answer in the place of the bot."""

    scene: Scene
    handoff_id: str | None
    """None unless a person answers."""
    history: tuple[Message, ...]


class Handoffs(Protocol):
    """Conversations that a person answers. Raises StateError."""

    async def speak(self, word: Word) -> str:
        """Put a word into history and outbox, and end the handoff where it does; its outbox id. NotHandedOver unless
        the conversation is in a handoff, or the word was taken before."""

    async def look(self, uid: str) -> Handoff:
        """Where a conversation stands."""


class Lease(msgspec.Struct, frozen=True):
    """That a worker has a partition."""

    partition: int
    worker: str
    token: int


class Attendance(msgspec.Struct, frozen=True):
    """What a worker learns when it tells that it lives. With `is_new` it was not known, or no longer: others may have
    what it had."""

    at_ms: int
    workers: tuple[str, ...]
    """Everyone who has told of late, itself included."""
    is_new: bool


class LeaseStore(Protocol):
    """Who of a flow's workers has which partition. Raises StateError."""

    @property
    def lease_s(self) -> float:
        """How long a worker, and with it all its leases, counts that is not heard of."""

    async def attend(self, worker: str) -> Attendance:
        """Tell that a worker lives, which keeps its leases."""

    async def leave(self, worker: str) -> None:
        """Tell that a worker goes."""

    async def lease(self, partition: int, worker: str, attended: Attendance, token: int = 0) -> int | None:
        """Take a partition, or look whether it is still held under a token: the token, greater than those of all owners
        before; None while another worker has it."""

    async def free(self, partition: int, worker: str, token: int | None = None) -> None:
        """Give a partition up, under a token or whatever it is; does nothing when it is lost already."""


class RecordSink(Protocol):
    """Keeps records for people; writing one twice keeps it once."""

    async def write(self, records: Sequence[Record]) -> None: ...


NoticeText = Callable[[Literal["closing", "ended"], float], str]
"""The text of a notice, given its kind and the seconds left."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Wall time in ms and monotonic time in s; tests hand in their own."""

    now_ms: Callable[[], int]
    monotonic_s: Callable[[], float] = field(default=lambda: 0.0)
