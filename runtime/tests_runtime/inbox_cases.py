"""What the tests of the inbox worker share: a bot that fails as it is told, and a worker that answers by it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields

from chatflow_runtime.answering import Counted
from chatflow_runtime.domain.conversation import Message
from chatflow_runtime.domain.reply import OutboxItem, Reply
from chatflow_runtime.domain.texts import Texts
from chatflow_runtime.inbox_worker import InboxWorker
from chatflow_runtime.metrics import Metrics
from chatflow_runtime.ownership import Ownership
from chatflow_runtime.ports import UNMETERED, Answered, Claimed, Entry, InboxReader, Letter
from chatflow_runtime.sink import DeltaSink
from prometheus_client import CollectorRegistry
from tests_runtime.state_cases import RULES, Case, outcome

TEXTS = Texts(*(each.name for each in fields(Texts)))
UNTIL_S = 30.0


@dataclass
class Bot:
    """Answers by a real claim and commit. `faults`: what to raise, in turn, by message id."""

    case: Case
    faults: dict[str, list[Exception]] = field(default_factory=dict)
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    begun: list[str] = field(default_factory=list)
    claimed: list[str] = field(default_factory=list)
    at_once: int = 0
    most: int = 0

    async def answer(
        self,
        uid: str,
        message_id: str,
        text: str,
        sink: DeltaSink | None = None,
        history: tuple[Message, ...] | None = None,
        entry: Entry = UNMETERED,
    ) -> OutboxItem:
        assert (sink, history, entry) == (None, None, UNMETERED)
        self.begun.append(message_id)
        if self.faults.get(message_id):
            raise self.faults[message_id].pop(0)
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            while True:
                turn = self.case.turn(message_id, uid, text)
                loaded = await self.case.store.load(turn)
                if isinstance(loaded, Answered):
                    return loaded.item
                if isinstance(loaded, Claimed):
                    break
                await asyncio.sleep(0)
            self.claimed.append(message_id)
            if message_id in self.gates:
                await self.gates[message_id].wait()
            return (await self.case.store.commit(turn, loaded.conversation, outcome(turn))).item
        finally:
            self.at_once -= 1


@dataclass
class Office:
    """A worker that answers, and what it needs."""

    worker: InboxWorker
    ownership: Ownership
    bot: Bot
    pauses_s: list[float]
    task: asyncio.Task[None]

    async def crash(self) -> None:
        """End it as SIGKILL would: nothing is finished, nothing is given back."""
        for task in (self.task, *self.worker._lanes):
            task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@asynccontextmanager
async def office(
    case: Case, name: str = "worker", bot: Bot | None = None, reader: InboxReader | None = None, is_told: bool = False
) -> AsyncIterator[Office]:
    bot, pauses_s = bot or Bot(case), list[float]()

    async def wait(seconds: float) -> None:
        pauses_s.append(seconds)
        await asyncio.sleep(0)

    async def ready() -> None:
        return

    ownership = case.ownership(name)
    await ownership.refresh()
    counted = Counted(bot, Metrics(CollectorRegistry()), case.time.clock)
    worker = InboxWorker(reader or case.inbox, ownership, counted, TEXTS, ready, wait, is_told=is_told)
    task = asyncio.create_task(worker.run())
    try:
        yield Office(worker, ownership, bot, pauses_s, task)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def letter(uid: str, message_id: str) -> Letter:
    return Letter(uid, message_id, f"text of {message_id}", 1_790_000_000_000)


async def said(case: Case, uid: str) -> list[str]:
    """What a user's outbox holds: ids of answered messages, and kinds of notices."""
    items = [entry.item for entry in await case.store.outbox(uid, "0", RULES.outbox_items)]
    return [item.message_id if isinstance(item, Reply) else f"{item.kind} {item.message_id}" for item in items]


async def answered(case: Case, uid: str, expected: list[str]) -> None:
    with case.store.watch(uid) as watch:
        async with asyncio.timeout(UNTIL_S):
            while await said(case, uid) != expected:
                await watch.wait(UNTIL_S)
