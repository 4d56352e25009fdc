"""Turns whose language model has no running server: held or degraded, counted, and told when to come back."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field

import pytest
from chatflow_api.names import METRIC_MODEL_WAITING
from chatflow_runtime.answerers.answer import Answer
from chatflow_runtime.answerers.demand import Demand
from chatflow_runtime.answerers.guard import Guards
from chatflow_runtime.answerers.lane import Lane
from chatflow_runtime.answerers.models import ModelLadder, Unanswered
from chatflow_runtime.domain.ladder import HELD_TURNS, MEMORY_S, TURN_S, WAKING_RETRY_S, wanting
from chatflow_runtime.domain.moderation import Moderator
from chatflow_runtime.domain.prompt import ChatMessage
from chatflow_runtime.domain.reply import Origin, Usage
from chatflow_runtime.errors import FirstTokenLate, ModelAbsent
from chatflow_runtime.metrics import Metrics
from chatflow_runtime.ports import Delta
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

PROMPTS: Mapping[Origin, Sequence[ChatMessage]] = {origin: [ChatMessage("user", "hello")] for origin in Origin}


@dataclass
class Sleeper:
    """A model without a server until it is awake; `gate` holds its answers back."""

    name: str
    is_awake: bool = False
    gate: asyncio.Event | None = None
    asked: int = 0

    async def stream(self, messages: Sequence[ChatMessage]) -> AsyncGenerator[Delta | Usage, None]:
        assert messages
        self.asked += 1
        if not self.is_awake:
            raise ModelAbsent("no server runs")
        if self.gate is not None:
            await self.gate.wait()
        yield Delta(f"{self.name} answers")


@dataclass
class Bench:
    """A ladder of two models, on a clock of its own: every wait of a held turn moves it on."""

    hold_s: float = 0.0
    llm: Sleeper = field(default_factory=lambda: Sleeper("llm"))
    backup: Sleeper = field(default_factory=lambda: Sleeper("backup"))
    now_s: float = 1000.0
    waits: int = 0
    wakes_after: int | None = None
    """Waits, of all turns together, after which llm runs."""
    ticking: bool = True

    def __post_init__(self) -> None:
        self.registry = CollectorRegistry()
        metrics = Metrics(self.registry)
        demands = {
            Origin.LLM: Demand(Origin.LLM, self.hold_s, lambda: self.now_s, self.wait),
            Origin.BACKUP: Demand(Origin.BACKUP, 0.0, lambda: self.now_s, self.wait),
        }
        for origin, demand in demands.items():
            metrics.watch_demand(origin, demand.turns)
        models = {Origin.LLM: self.llm, Origin.BACKUP: self.backup}
        lanes = {origin: Lane(origin, metrics) for origin in models}
        self.ladder = ModelLadder(
            models, Moderator.build([], refusal="no"), metrics, "broken off", Guards(metrics), lanes, demands
        )

    async def wait(self, seconds: float) -> None:
        self.waits += 1
        if self.waits == self.wakes_after:
            self.llm.is_awake = True
        if self.ticking:
            self.now_s += seconds
        await asyncio.sleep(0)

    async def ask(self) -> Answer | Unanswered:
        return await self.ladder.answer(PROMPTS, None)

    def wanted(self, role: str = "llm") -> float | None:
        """What a scrape reads."""
        return self.registry.get_sample_value(METRIC_MODEL_WAITING, {"role": role})


async def test_a_turn_is_held_until_the_model_is_awake() -> None:
    bench = Bench(hold_s=60.0, wakes_after=40)
    answer = await bench.ask()
    assert isinstance(answer, Answer)
    assert (answer.text, bench.waits, bench.backup.asked) == ("llm answers", 40, 0)


async def test_a_turn_that_was_held_in_vain_goes_on_at_the_deadline() -> None:
    bench = Bench(hold_s=60.0, backup=Sleeper("backup", is_awake=True))
    answer = await bench.ask()
    assert isinstance(answer, Answer)
    assert answer.origin is Origin.BACKUP
    assert bench.now_s == 1060.0


async def test_a_turn_that_degrades_goes_on_at_once_and_is_told_when_to_come_back() -> None:
    bench = Bench()
    assert await bench.ask() == Unanswered(WAKING_RETRY_S)
    assert (bench.waits, bench.llm.asked, bench.backup.asked) == (0, 1, 1)


async def test_only_so_many_are_held_and_the_others_degrade() -> None:
    bench = Bench(hold_s=60.0, ticking=False)
    held = [asyncio.create_task(bench.ask()) for _ in range(HELD_TURNS)]
    for _ in range(3):
        await asyncio.sleep(0)
    assert bench.waits >= HELD_TURNS
    assert await bench.ask() == Unanswered(WAKING_RETRY_S)
    held.pop().cancel()
    await asyncio.sleep(0)
    held.append(asyncio.create_task(bench.ask()))
    for _ in range(3):
        await asyncio.sleep(0)
    bench.llm.is_awake = True
    assert all(isinstance(answer, Answer) for answer in await asyncio.gather(*held))


async def test_a_model_that_runs_and_is_late_holds_nobody() -> None:
    class Late(Sleeper):
        async def stream(self, messages: Sequence[ChatMessage]) -> AsyncGenerator[Delta | Usage, None]:
            if messages:
                raise FirstTokenLate("late")
            yield Delta("")

    bench = Bench(hold_s=60.0, llm=Late("llm"), backup=Late("backup"))
    assert await bench.ask() == Unanswered(None)
    assert (bench.waits, bench.wanted()) == (0, 0)


async def test_demand_is_seen_while_turns_are_answered_held_and_for_a_while_after_they_went_without() -> None:
    gate = asyncio.Event()
    bench = Bench(llm=Sleeper("llm", is_awake=True, gate=gate))
    assert (bench.wanted(), bench.wanted("backup")) == (0, 0)
    tasks = [asyncio.create_task(bench.ask()) for _ in range(3)]
    await asyncio.sleep(0)
    assert bench.wanted() == 3
    gate.set()
    await asyncio.gather(*tasks)
    assert bench.wanted() == 0
    bench.llm.is_awake = False
    for _ in range(5):
        await bench.ask()
    seen = [bench.wanted()]
    for seconds in (TURN_S + 1, MEMORY_S - TURN_S - 2, 2):
        bench.now_s += seconds
        seen.append(bench.wanted())
    assert seen == [5, 1, 1, 0]
    assert bench.wanted("backup") == 0


@given(asking=st.integers(0, 50), absent_s=st.lists(st.floats(0, 200), max_size=20))
def test_demand_is_never_below_what_is_asked_nor_gone_before_it_can_be_seen(asking: int, absent_s: list[float]) -> None:
    found = wanting(asking, absent_s)
    assert asking <= found <= asking + len(absent_s)
    assert (found > 0) == (asking > 0 or min(absent_s, default=MEMORY_S + 1) <= MEMORY_S)
    ages = itertools.accumulate(absent_s, initial=0.0)
    assert wanting(asking, list(ages)) >= 1


@pytest.mark.parametrize(
    ("is_awake", "wanted"),
    [
        pytest.param(True, 0, id="in the middle of an answer"),
        pytest.param(False, 1, id="held: the model is to wake all the same"),
    ],
)
async def test_a_user_who_leaves_is_counted_no_more_unless_no_server_ran(is_awake: bool, wanted: float) -> None:
    bench = Bench(hold_s=60.0, llm=Sleeper("llm", is_awake=is_awake, gate=asyncio.Event()), ticking=False)
    task = asyncio.create_task(bench.ask())
    await asyncio.sleep(0)
    assert bench.wanted() == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.wanted() == wanted
    bench.now_s += MEMORY_S + 1
    assert bench.wanted() == 0
