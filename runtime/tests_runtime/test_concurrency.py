"""The limit of answers under way finds what a model's server can do, on simulated servers; and places go to those under
way before those who are new."""

from __future__ import annotations

import asyncio
import heapq
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from chatflow_runtime.answerers.lane import Lane
from chatflow_runtime.domain.concurrency import Limit, LimitRules, Priority, QueueRules
from chatflow_runtime.domain.reply import Origin
from chatflow_runtime.errors import ModelOverloaded
from chatflow_runtime.metrics import Metrics
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

DEADLINE_S = 0.8
"""Of a first token."""
LATE = -1.0


@dataclass
class Simulation:
    """A server that answers so many at once and has the others wait; clients ask whenever the limit lets them."""

    slots: int
    answer_s: float
    first_token_s: float
    rules: LimitRules = field(default_factory=LimitRules)
    seed: int = 1
    spread: Callable[[random.Random], float] = lambda chance: chance.uniform(0.8, 1.2)
    """By what first tokens take longer or shorter than usual, for their questions' sake."""

    def __post_init__(self) -> None:
        self.limit = Limit(self.rules)
        self.chance = random.Random(self.seed)  # noqa: S311  The same load again, no secret.
        self.now_s = 0.0
        self.under_way = 0
        self.free_s = [0.0] * self.slots
        """When each slot of the server is free."""
        self.events: list[tuple[float, int, float | None]] = []
        """(when, number, seconds to the first token; None for the end of an answer, LATE for one that is given up)."""
        self.number = self.late = 0

    def run(self, seconds: float, rate: float) -> tuple[float, list[float]]:
        """(answers a second, seconds to their first tokens) with requests coming at a rate; those that find no place
        are turned away."""
        end_s, answered, first = self.now_s + seconds, 0, []
        arrival_s = self.now_s
        while True:
            arrival_s += self.chance.expovariate(rate)
            while self.events and self.events[0][0] <= min(arrival_s, end_s):
                self.now_s, _, token_s = heapq.heappop(self.events)
                if token_s is None:
                    self.under_way -= 1
                    answered += 1
                elif token_s == LATE:
                    self.under_way -= 1
                    self.limit.late(self.now_s)
                    self.late += 1
                else:
                    self.limit.began(token_s, self.under_way, self.now_s)
                    first.append(token_s)
            if arrival_s > end_s:
                self.now_s = end_s
                return answered / seconds, first
            if self.under_way < self.limit.value:
                self._ask(arrival_s)

    def _ask(self, at_s: float) -> None:
        free_s = heapq.heappop(self.free_s)
        begin_s = max(at_s, free_s)
        whole_s = self.answer_s * self.chance.uniform(0.7, 1.3)
        token_s = min(self.first_token_s * self.spread(self.chance), whole_s)
        self.under_way += 1
        self.number += 1
        given_up_s = at_s + DEADLINE_S
        if begin_s + token_s > given_up_s:
            heapq.heappush(self.free_s, max(free_s, given_up_s) if begin_s < given_up_s else free_s)
            heapq.heappush(self.events, (given_up_s, self.number, LATE))
            return
        heapq.heappush(self.free_s, begin_s + whole_s)
        heapq.heappush(self.events, (begin_s + token_s, self.number, begin_s + token_s - at_s))
        heapq.heappush(self.events, (begin_s + whole_s, self.number, None))


@pytest.mark.parametrize(
    ("slots", "answer_s", "first_token_s"),
    [
        pytest.param(8, 0.2, 0.02, id="small and fast"),
        pytest.param(16, 1.0, 0.05, id="a GPU"),
        pytest.param(64, 4.0, 0.2, id="long answers"),
        pytest.param(200, 2.0, 0.1, id="large"),
        pytest.param(2, 0.5, 0.1, id="two at a time"),
    ],
)
def test_under_three_times_its_load_a_server_stays_busy_and_fast(
    slots: int, answer_s: float, first_token_s: float
) -> None:
    server = Simulation(slots, answer_s, first_token_s)
    capacity = slots / answer_s
    server.run(20, 0.5 * capacity)
    server.run(max(10, 10 * answer_s), 3 * capacity)
    server.late = 0
    rate, first = server.run(max(30, 10 * answer_s), 3 * capacity)
    assert rate >= 0.85 * capacity
    # The largest queue that may stand is one that a turn cannot but share with one other.
    assert statistics.median(first) < 2 * max(first_token_s, LimitRules().harmless_s) + answer_s / slots * 2
    assert server.late < 0.1 * len(first)


def test_a_server_that_becomes_slower_is_not_held_down_for_ever() -> None:
    server = Simulation(16, 0.5, 0.05)
    server.run(30, 60)
    server.first_token_s, server.answer_s = 0.15, 1.5
    server.run(600, 60)
    rate, _ = server.run(60, 60)
    assert rate >= 0.8 * 16 / 1.5


def test_a_load_that_it_can_bear_is_never_turned_away_by_the_limit() -> None:
    server = Simulation(64, 1.0, 0.05)
    for _ in range(10):
        rate, _ = server.run(20, 40)
        assert rate == pytest.approx(40, rel=0.15)


@pytest.mark.parametrize("rate", [2, 10])
@pytest.mark.parametrize(
    "spread",
    [
        pytest.param(lambda chance: chance.lognormvariate(0, 0.3), id="some longer"),
        pytest.param(lambda chance: chance.lognormvariate(0, 0.5), id="some much longer"),
        pytest.param(lambda chance: 0.6 if chance.random() < 0.6 else 2.25, id="two kinds"),
    ],
)
def test_questions_of_different_lengths_are_no_queue(spread: Callable[[random.Random], float], rate: float) -> None:
    server = Simulation(10_000, 4.0, 0.2, spread=spread)
    server.run(200, rate)
    server.late = 0
    answered, _ = server.run(1000, rate)
    assert answered + server.late / 1000 >= 0.95 * rate


def test_a_load_that_stays_too_high_makes_nobody_wait_longer_from_hour_to_hour() -> None:
    server = Simulation(8, 0.2, 0.02)
    server.run(60, 120)
    for _ in range(3):
        server.late = 0
        rate, first = server.run(1200, 120)
        assert rate >= 0.9 * 8 / 0.2
        assert sorted(first)[int(len(first) * 0.99)] < 0.3
        assert server.late == 0


def test_a_model_that_hung_has_its_places_once_it_is_well() -> None:
    limit = Limit(LimitRules(first=100))
    limit.began(0.2, 1, 0.0)
    for second in range(1, 300):
        limit.late(float(second))
    assert limit.value == 80


def test_some_first_tokens_that_do_not_come_are_no_queue() -> None:
    limit, chance = Limit(LimitRules(first=64)), random.Random(1)  # noqa: S311  The same again, no secret.
    for number in range(20_000):
        if chance.random() < 0.04:
            limit.late(number * 0.1)
        else:
            limit.began(0.2, 40, number * 0.1)
    assert limit.value >= 64


def test_the_jitter_of_a_fast_model_is_no_queue() -> None:
    limit, chance = Limit(LimitRules(first=64)), random.Random(1)  # noqa: S311  The same again, no secret.
    for number in range(5000):
        limit.began(chance.choice((0.001, 0.004, 0.02, 0.06)), 40, number * 0.01)
    assert limit.value >= 64


def test_refusals_lower_the_limit_once_a_window_and_no_further_than_its_bound() -> None:
    limit = Limit(LimitRules(first=100, least=5))
    for _ in range(50):
        limit.refused(1.0)
    assert limit.value == 80
    for second in range(100):
        limit.refused(float(second + 2))
    assert limit.value == 5


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(0, 2000), st.floats(0, 0.3), st.booleans()), max_size=300))
def test_the_limit_stays_within_its_bounds_whatever_happens(steps: list[tuple[float, int, float, bool]]) -> None:
    limit, now_s = Limit(LimitRules(least=3, most=50, first=20)), 0.0
    for seconds, under_way, pause_s, is_refused in steps:
        now_s += pause_s
        if is_refused:
            limit.refused(now_s)
        else:
            limit.began(seconds, under_way, now_s)
        assert 3 <= limit.value <= 50


class Bench:
    """A lane with two places."""

    def __init__(self, patience_s: float = 30.0, *, new_wait: bool = False) -> None:
        self.registry = CollectorRegistry()
        rules = QueueRules(patience_s, patience_s, new_wait=new_wait)
        self.now_s = 0.0
        self.lane = Lane(Origin.LLM, Metrics(self.registry), LimitRules(least=2, most=2), rules, lambda: self.now_s)
        self.done: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}

    async def answer(self, name: str, priority: Priority = Priority.UNDER_WAY) -> None:
        async with self.lane.place(priority):
            self.done.append(name)
            await self.gates.setdefault(name, asyncio.Event()).wait()

    def begin(self, name: str, priority: Priority = Priority.UNDER_WAY) -> asyncio.Task[None]:
        return asyncio.create_task(self.answer(name, priority))

    async def finish(self, name: str, task: asyncio.Task[None]) -> None:
        self.gates[name].set()
        await task
        await asyncio.sleep(0)


async def test_the_new_do_not_wait_and_forms_go_first() -> None:
    bench = Bench()
    first, second = bench.begin("first", Priority.NEW), bench.begin("second")
    await asyncio.sleep(0)
    with pytest.raises(ModelOverloaded):
        await bench.answer("new", Priority.NEW)
    waiting = {name: bench.begin(name, priority) for name, priority in WAITING.items()}
    await asyncio.sleep(0)
    with pytest.raises(ModelOverloaded):
        await bench.answer("new", Priority.NEW)
    await bench.finish("first", first)
    await bench.finish("second", second)
    for name in ("form", "earlier", "later"):
        await bench.finish(name, waiting[name])
    assert bench.done == ["first", "second", "form", "earlier", "later"]
    assert bench.lane.under_way == 0
    assert bench.registry.get_sample_value("chatflow_overloaded_total", {"role": "llm"}) == 2


async def test_where_the_new_wait_they_come_last() -> None:
    bench = Bench(new_wait=True)
    tasks = [bench.begin("first"), bench.begin("second")]
    await asyncio.sleep(0)
    tasks += [bench.begin("new", Priority.NEW), bench.begin("third")]
    await asyncio.sleep(0)
    for name, task in zip(("first", "second"), tasks, strict=False):
        await bench.finish(name, task)
    assert bench.done == ["first", "second", "third", "new"]
    for name, task in zip(("new", "third"), tasks[2:], strict=True):
        await bench.finish(name, task)


WAITING = {"earlier": Priority.UNDER_WAY, "later": Priority.UNDER_WAY, "form": Priority.HELD}


async def test_in_a_standing_queue_the_latest_is_served_first() -> None:
    bench = Bench()
    tasks = {name: bench.begin(name) for name in ("first", "second", "earlier", "later")}
    await asyncio.sleep(0)
    bench.now_s = 1.0
    await bench.finish("first", tasks["first"])
    assert bench.done[-1] == "later"
    for name in ("second", "later", "earlier"):
        await bench.finish(name, tasks[name])


async def test_who_waits_too_long_is_told_and_its_place_goes_to_nobody_twice() -> None:
    bench = Bench(patience_s=0.01)
    tasks = {name: bench.begin(name) for name in ("first", "second")}
    await asyncio.sleep(0)
    with pytest.raises(ModelOverloaded):
        await bench.answer("third")
    for name, task in tasks.items():
        await bench.finish(name, task)
    assert bench.lane.under_way == 0


async def test_who_loses_patience_in_the_moment_in_which_a_place_becomes_free_harms_nobody() -> None:
    bench = Bench()
    tasks = {name: bench.begin(name) for name in ("first", "second", "third", "fourth")}
    await asyncio.sleep(0)
    # The first one leaves before the third comes to know that it is cancelled.
    bench.gates["first"].set()
    tasks["third"].cancel()
    await tasks["first"]
    await asyncio.sleep(0)
    assert bench.done == ["first", "second", "fourth"]
    for name in ("second", "fourth"):
        await bench.finish(name, tasks[name])
    assert bench.lane.under_way == 0


async def test_a_turn_that_is_cancelled_while_it_waits_leaves_no_trace() -> None:
    bench = Bench()
    tasks = {name: bench.begin(name) for name in ("first", "second", "third")}
    await asyncio.sleep(0)
    tasks["third"].cancel()
    # The place comes in the same tick as the cancellation.
    bench.gates["first"].set()
    for name in ("first", "second"):
        bench.gates[name].set()
    await asyncio.gather(*tasks.values(), return_exceptions=True)
    assert bench.lane.under_way == 0
    await asyncio.wait_for(asyncio.gather(*(bench.begin(name) for name in ("first", "second"))), 5)
