"""Language models that fail or are slow are passed over, and tried again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

import pytest
from chatflow_runtime.answerers.answer import Answer
from chatflow_runtime.answerers.guard import Guards
from chatflow_runtime.answerers.lane import Lane
from chatflow_runtime.answerers.models import ModelLadder, Unanswered
from chatflow_runtime.domain.breaker import BreakerRules, State
from chatflow_runtime.domain.ladder import MODELS
from chatflow_runtime.domain.moderation import Moderator
from chatflow_runtime.domain.prompt import ChatMessage
from chatflow_runtime.domain.reply import Origin, Usage
from chatflow_runtime.errors import (
    AnswerTooLong,
    FirstTokenLate,
    ModelAbsent,
    ModelError,
    ModelUnavailable,
    PromptRefused,
    TokenGapTooLong,
)
from chatflow_runtime.metrics import Metrics
from chatflow_runtime.ports import Delta
from prometheus_client import CollectorRegistry

RULES = BreakerRules(calls=10, minimum_calls=4)
PROMPTS: dict[Origin, Sequence[ChatMessage]] = {Origin.LLM: [], Origin.BACKUP: []}


@dataclass
class Model:
    """Answers with its name, unless it is to fail: at once, or in the middle of its answer."""

    name: str
    fails: ModelError | None = None
    breaks_off: ModelError | None = None
    gate: asyncio.Event | None = None
    asked: int = 0

    async def stream(self, messages: Sequence[ChatMessage]) -> AsyncGenerator[Delta | Usage, None]:  # noqa: ARG002
        self.asked += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.fails is not None:
            raise self.fails
        yield Delta(self.name)
        if self.breaks_off is not None:
            raise self.breaks_off


@dataclass
class Bench:
    """A ladder of two models on a clock of its own."""

    rules: BreakerRules = RULES
    slow_s: float | None = None
    llm: Model = field(default_factory=lambda: Model("llm"))
    backup: Model = field(default_factory=lambda: Model("backup"))
    has_backup: bool = True
    now_s: float = 0.0

    def __post_init__(self) -> None:
        self.registry = CollectorRegistry()
        metrics = Metrics(self.registry)
        self.guards = Guards(metrics, self.rules, self.slow_s, lambda: self.now_s, lambda: 0.0)
        moderator = Moderator.build([], refusal="no")
        models = {Origin.LLM: self.llm, **({Origin.BACKUP: self.backup} if self.has_backup else {})}
        lanes = {origin: Lane(origin, metrics) for origin in MODELS}
        self.ladder = ModelLadder(models, moderator, metrics, "broken off", self.guards, lanes)

    async def ask(self, times: int = 1) -> str:
        """So many turns; what the last one was told."""
        for _ in range(times):
            found = await self.ladder.answer(PROMPTS, None)
        return found.text if isinstance(found, Answer) else "nothing"

    def sample(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"chatflow_breaker_{name}", {"backend": "llm", **labels})


async def test_a_model_that_fails_is_passed_over_and_asked_again_once_it_is_well() -> None:
    bench = Bench(llm=Model("llm", fails=FirstTokenLate("late")))
    assert await bench.ask(4) == "backup"
    assert await bench.ask(50) == "backup"
    assert (bench.llm.asked, bench.backup.asked) == (4, 54)
    assert (bench.sample("openings_total"), bench.sample("refused_total")) == (1, 50)
    assert bench.sample("state", state="open") == 1
    snapshot = bench.guards.snapshots()["llm"]
    assert (snapshot.state, snapshot.openings, snapshot.opens_for_s) == (State.OPEN, 1, RULES.open_s)

    bench.now_s += RULES.open_s
    assert bench.sample("state", state="half-open") == 1
    assert await bench.ask(10) == "backup"
    assert bench.llm.asked == 5, "one call to see, and it failed"

    bench.llm.fails = None
    bench.now_s += RULES.most_open_s
    assert await bench.ask(RULES.probes) == "llm"
    assert bench.sample("state", state="closed") == 1
    assert await bench.ask(10) == "llm"


@pytest.mark.parametrize(
    "error", [ModelAbsent("asleep"), PromptRefused("too long"), AnswerTooLong("too long")], ids=lambda error: error.code
)
async def test_what_says_nothing_of_a_model_s_servers_leaves_it_in_service(error: ModelError) -> None:
    bench = Bench(llm=Model("llm", fails=error))
    await bench.ask(50)
    assert bench.llm.asked == 50
    assert bench.guards.snapshots()["llm"].calls == 0


async def test_answers_that_break_off_count_against_a_model() -> None:
    bench = Bench(llm=Model("llm", breaks_off=TokenGapTooLong("silent")))
    assert "broken off" in await bench.ask(2)
    assert await bench.ask(10) == "backup"


async def test_first_tokens_that_are_slow_by_the_manifest_count_against_a_model_though_its_answers_are_used() -> None:
    # No time is so short that it would not be longer than this.
    bench = Bench(BreakerRules(in_a_row=3), slow_s=-1.0)
    assert await bench.ask(3) == "llm"
    assert await bench.ask(3) == "backup"
    assert await bench.ask() == "nothing"
    assert (bench.llm.asked, bench.backup.asked) == (3, 3)


async def test_with_a_single_model_the_next_rung_comes_at_once() -> None:
    bench = Bench(llm=Model("llm", fails=ModelUnavailable("refused")), has_backup=False)
    await bench.ask(4)
    assert isinstance(await bench.ladder.answer(PROMPTS, None), Unanswered)
    assert bench.llm.asked == 4


async def test_a_user_who_leaves_while_a_model_is_tried_again_makes_way_for_the_next() -> None:
    bench = Bench(llm=Model("llm", fails=FirstTokenLate("late")))
    await bench.ask(4)
    bench.now_s += RULES.open_s
    bench.llm.fails, bench.llm.gate = None, asyncio.Event()
    turns = [asyncio.create_task(bench.ask()) for _ in range(RULES.probes)]
    await asyncio.sleep(0)
    assert await bench.ask() == "backup"
    for turn in turns:
        turn.cancel()
    await asyncio.gather(*turns, return_exceptions=True)
    bench.llm.gate = None
    assert await bench.ask(RULES.probes) == "llm"
    assert bench.guards.snapshots()["llm"].state is State.CLOSED
