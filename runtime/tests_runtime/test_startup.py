"""What a gateway waits for as it starts, and how artefacts reach it later."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from chatflow_models.intent import IntentModel, NoEncoder
from chatflow_models.training import Example, train
from chatflow_runtime.adapters.artefacts import RETRY_S, ArtefactFolder, Artefacts, Follower
from chatflow_runtime.adapters.classification import InProcessClassifier
from chatflow_runtime.adapters.knowledge import KnowledgeIndex, SourceFile, build_index, read_files
from chatflow_runtime.errors import ArtefactInvalid, StateUnavailable
from chatflow_runtime.ports import UNKNOWN, Query
from chatflow_runtime.startup import Need, Startup

EXAMPLES = {"refund": ("money back", "refund please", "return it"), "parcel": ("where is it", "track it", "my parcel")}


class Redis:
    """Something that comes up after so many attempts."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.attempts = 0

    async def check(self) -> None:
        self.attempts += 1
        if self.attempts <= self.failures:
            raise StateUnavailable("nobody there")


async def at_once(_: float) -> None:
    await asyncio.sleep(0)


async def never() -> None:
    await asyncio.Event().wait()


async def test_a_start_waits_until_everything_is_there_and_tells_for_what() -> None:
    told: list[str] = []
    redis = Redis(3)
    async with asyncio.timeout(10):
        await Startup(3600, told.append, at_once).until([Need("Redis", redis.check), Need("models", Redis(0).check)])
    assert redis.attempts == 4
    assert told[0] == "Redis; models"
    assert told[-1] == "Redis (nobody there)"


async def test_a_start_goes_on_at_its_deadline() -> None:
    told: list[str] = []
    async with asyncio.timeout(10):
        await Startup(0.05, told.append).until([Need("Redis", Redis(10**9).check), Need("artefacts", never)])
    assert "artefacts" in told[-1]


async def test_a_deadline_of_nothing_tries_once_however_long_that_takes() -> None:
    redis, slow = Redis(1), asyncio.Event()

    async def check() -> None:
        await slow.wait()

    start = asyncio.create_task(Startup(0, lambda _: None).until([Need("Redis", redis.check), Need("slow", check)]))
    await asyncio.sleep(0.05)
    assert not start.done()
    slow.set()
    async with asyncio.timeout(10):
        await start
    assert redis.attempts == 1


async def test_an_attempt_that_begins_after_the_deadline_has_its_own_time() -> None:
    startup, warmed = Startup(0.01, lambda _: None), asyncio.Event()
    await startup.until([Need("Redis", never)])

    async def warm() -> None:
        await asyncio.sleep(0.02)
        warmed.set()

    await startup.until([Need("warm turn", warm)], at_least_s=10)
    assert warmed.is_set()


class Followed:
    """A folder and its follower, one look at a time."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.swapped: list[Artefacts] = []
        self._look, self._looked = asyncio.Semaphore(0), asyncio.Semaphore(0)
        self.follower = Follower(ArtefactFolder(root), self.swapped.append, self._wait)
        self._task = asyncio.create_task(self.follower.run())

    async def _wait(self, _: float) -> None:
        self._looked.release()
        await self._look.acquire()

    async def looks(self, times: int = 1) -> None:
        """Let it look, and wait until it has."""
        for _ in range(times):
            async with asyncio.timeout(30):
                await self._looked.acquire()
            self._look.release()

    def end(self) -> None:
        self._task.cancel()

    def index(self, answer: str) -> str:
        """An index of one answer."""
        pair = f"- question: When are you open?\n  answer: {answer}\n"
        return build_index(read_files([SourceFile("faq.yaml", pair.encode())]), None, self.root / "knowledge").version

    def model(self, name: str) -> str:
        examples = [Example(text, intent) for intent, texts in EXAMPLES.items() for text in texts]
        train(examples, NoEncoder(), self.root / "intent" / name, threshold=0.5)
        return name

    def point(self, knowledge: str, intent: str | None = None) -> None:
        fresh = self.root / "fresh"
        fresh.write_text(json.dumps({"knowledge": knowledge, "intent": intent}))
        fresh.replace(self.root / "current.json")


@pytest.fixture
async def followed(tmp_path: Path) -> AsyncIterator[Followed]:
    made = Followed(tmp_path)
    yield made
    made.end()


async def test_a_pointer_that_appears_later_is_followed(followed: Followed) -> None:
    await followed.looks()
    with pytest.raises(ArtefactInvalid, match=r"there is no .*current\.json yet"):
        await followed.follower.check()
    version = followed.index("From nine.")
    followed.point(version)
    await followed.looks(2)
    await followed.follower.check()
    assert [artefacts.index.version for artefacts in followed.swapped] == [version]


async def test_a_damaged_pair_leaves_the_old_in_use_and_is_tried_again(followed: Followed) -> None:
    old, new = followed.index("From nine."), followed.index("From ten.")
    followed.point(old)
    await followed.looks(2)
    shutil.move(followed.root / "knowledge" / new, followed.root / "elsewhere")
    followed.point(new)
    await followed.looks(2)
    await followed.follower.check()
    shutil.move(followed.root / "elsewhere", followed.root / "knowledge" / new)
    await followed.looks(round(RETRY_S) - 5)
    assert [artefacts.index.version for artefacts in followed.swapped] == [old]
    await followed.looks(7)
    assert [artefacts.index.version for artefacts in followed.swapped] == [old, new]


async def test_a_flow_gains_and_loses_its_intent_model_in_place(followed: Followed) -> None:
    classifier = InProcessClassifier(None)
    assert await classifier.classify("money back") is UNKNOWN
    assert classifier.version == "none"
    model = IntentModel.load(followed.root / "intent" / followed.model("m"))
    classifier.swap(model)
    assert (await classifier.classify("money back")).intent == "refund"
    assert classifier.version == model.version
    waiting = classifier.classify("money back")
    first_step = asyncio.ensure_future(waiting)
    asyncio.get_running_loop().call_soon(classifier.swap, None)
    # The text was handed over one step before its batch, and the model goes between the two.
    assert await first_step is UNKNOWN
    assert await classifier.classify("money back") is UNKNOWN


def test_the_empty_index_finds_nothing() -> None:
    index = KnowledgeIndex.empty()
    assert index.search([Query("anything")], 3) == [[]]
