"""Micro-batching: whatever comes together, each caller gets its own results, in order."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest
from chatflow_models.intent.batching import Batcher, BatchFailed, Limits, QueueFull, in_executor
from hypothesis import given, settings
from hypothesis import strategies as st

SOON_S = 5.0
"""For what must not wait for a window that is a hundred times as long."""


class Work:
    """Doubles numbers, and notes the batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        return [2 * item for item in items]


def batcher(work: Work, limits: Limits, executor: ThreadPoolExecutor | None = None) -> Batcher[int, int]:
    return Batcher(work if executor is None else in_executor(executor, work), limits, size_of=lambda item: item)


@given(
    calls=st.lists(st.lists(st.integers(0, 50), max_size=9), max_size=30),
    items=st.integers(1, 8),
    size=st.integers(1, 200),
    is_threaded=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_every_caller_gets_its_own_results_in_order(
    calls: list[list[int]], items: int, size: int, is_threaded: bool
) -> None:
    work = Work()

    async def run() -> list[list[int]]:
        with ThreadPoolExecutor(1) as executor:
            batches = batcher(work, Limits(items, size, 0.001), executor if is_threaded else None)
            results = await asyncio.gather(*map(batches.submit, calls))
            await batches.idle()
            assert batches.waiting == 0
            return results

    assert asyncio.run(run()) == [[2 * item for item in call] for call in calls]
    assert sorted(itertools.chain(*work.batches)) == sorted(itertools.chain(*calls))
    assert all(len(batch) <= items for batch in work.batches)
    assert all(sum(batch[:-1]) < size for batch in work.batches)


@given(
    calls=st.lists(st.tuples(st.lists(st.integers(0, 50), min_size=1, max_size=4), st.booleans()), max_size=20),
    batches=st.integers(1, 4),
    window_s=st.sampled_from([0.0, 0.001]),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=100, deadline=None)
def test_several_batches_under_way_keep_callers_apart_whoever_leaves_and_whichever_ends_first(
    calls: list[tuple[list[int], bool]], batches: int, window_s: float, seed: int
) -> None:
    order = Random(seed)  # noqa: S311  An order, not a secret.
    under_way: list[tuple[list[int], asyncio.Future[list[int]]]] = []
    most = 0

    async def work(items: Sequence[int]) -> list[int]:
        nonlocal most
        under_way.append((list(items), asyncio.get_running_loop().create_future()))
        most = max(most, len(under_way))
        return await under_way[-1][1]

    async def run() -> None:
        batcher: Batcher[int, int] = Batcher(work, Limits(5, 1000, window_s, batches=batches), size_of=lambda _: 1)
        tasks = [asyncio.create_task(batcher.submit(items)) for items, _ in calls]
        idle = asyncio.create_task(batcher.idle())
        leaving = [task for task, (_, leaves) in zip(tasks, calls, strict=True) if leaves]
        while not all(task.done() for task in tasks) or not idle.done():
            await asyncio.sleep(0)
            if leaving and order.random() < 0.3:
                leaving.pop().cancel()
            if under_way and order.random() < 0.5:
                items, done = under_way.pop(order.randrange(len(under_way)))
                done.set_result([2 * item for item in items])
        for task, (items, leaves) in zip(tasks, calls, strict=True):
            assert (leaves and task.cancelled()) or task.result() == [2 * item for item in items]

    asyncio.run(run())
    assert most <= batches


async def test_a_call_in_two_batches_keeps_its_order_when_the_later_one_ends_first() -> None:
    begun: list[asyncio.Future[list[int]]] = []

    def work(_: Sequence[int]) -> asyncio.Future[list[int]]:
        begun.append(asyncio.get_running_loop().create_future())
        return begun[-1]

    batcher: Batcher[int, int] = Batcher(work, Limits(items=1, batches=2), size_of=lambda _: 1)
    call = asyncio.create_task(batcher.submit([1, 2]))
    for _ in range(4):
        await asyncio.sleep(0)
    begun[1].set_result([4])
    await asyncio.sleep(0)
    begun[0].set_result([2])
    assert await call == [2, 4]


async def test_work_that_is_cancelled_fails_its_callers_and_the_next_batch_goes_on() -> None:
    begun: list[asyncio.Future[list[int]]] = []

    def work(_: Sequence[int]) -> asyncio.Future[list[int]]:
        begun.append(asyncio.get_running_loop().create_future())
        return begun[-1]

    batcher: Batcher[int, int] = Batcher(work, Limits(items=1), size_of=lambda _: 1)
    first, second = asyncio.create_task(batcher.submit([1])), asyncio.create_task(batcher.submit([2]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    begun[0].cancel()
    with pytest.raises(BatchFailed, match="CancelledError"):
        await first
    await asyncio.sleep(0)
    begun[1].set_result([4])
    assert await second == [4]


async def test_calls_of_one_tick_are_one_batch() -> None:
    work = Work()
    batches = batcher(work, Limits())
    await asyncio.gather(*(batches.submit([number]) for number in range(5)))
    assert work.batches == [[0, 1, 2, 3, 4]]


async def test_a_lone_caller_never_waits_for_the_window_and_company_is_waited_for() -> None:
    work = Work()
    batches = batcher(work, Limits(window_s=500.0))
    async with asyncio.timeout(SOON_S):
        for number in range(3):
            await batches.submit([number])
        assert work.batches == [[0], [1], [2]]
        await asyncio.gather(batches.submit([3]), batches.submit([4]))
        # From now on as many are waited for as came together last.
        first = asyncio.create_task(batches.submit([5]))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not first.done()
        await asyncio.gather(first, batches.submit([6]))
    assert work.batches[-1] == [5, 6]


async def test_the_window_ends_the_wait() -> None:
    work = Work()
    batches = batcher(work, Limits(window_s=0.01))
    await asyncio.gather(batches.submit([1]), batches.submit([2]))
    async with asyncio.timeout(SOON_S):
        assert await batches.submit([3]) == [6]


async def test_too_many_are_refused_at_once_and_those_before_are_served() -> None:
    batches = batcher(Work(), Limits(waiting=3))
    first = asyncio.create_task(batches.submit([1, 2]))
    await asyncio.sleep(0)
    with pytest.raises(QueueFull, match="2 texts wait already"):
        await batches.submit([3, 4])
    assert await batches.submit([5]) == [10]
    assert await first == [2, 4]


@given(calls=st.lists(st.integers(1, 30), min_size=1, max_size=8), items=st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_a_call_waits_for_one_batch_of_each_call_before_it_however_long_they_are(calls: list[int], items: int) -> None:
    work = Work()

    async def run() -> None:
        batches = batcher(work, Limits(items))
        await asyncio.gather(*(batches.submit([number] * length) for number, length in enumerate(calls)))

    asyncio.run(run())
    served = list(itertools.chain(*work.batches))
    for number in range(len(calls)):
        assert served.index(number) <= number * items


async def test_a_batch_has_no_more_items_than_it_may_have_now() -> None:
    work, most = Work(), [3]
    batches: Batcher[int, int] = Batcher(work, Limits(items=8), size_of=lambda _: 1, most=lambda: most[0])
    await batches.submit([1] * 6)
    most[0] = 100
    await batches.submit([2] * 9)
    assert [len(batch) for batch in work.batches] == [3, 3, 8, 1]


async def test_a_call_that_has_waited_too_long_is_refused_and_not_worked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [0.0]
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now_s[0])
    begun: list[asyncio.Future[list[int]]] = []

    def work(_: Sequence[int]) -> asyncio.Future[list[int]]:
        begun.append(asyncio.get_running_loop().create_future())
        return begun[-1]

    batches: Batcher[int, int] = Batcher(work, Limits(items=2, wait_s=0.5), size_of=lambda _: 1)
    under_way = asyncio.create_task(batches.submit([1, 2, 3]))
    for _ in range(3):
        await asyncio.sleep(0)
    late = asyncio.create_task(batches.submit([4]))
    await asyncio.sleep(0)
    now_s[0] = 0.6
    begun[0].set_result([2, 4])
    for _ in range(3):
        await asyncio.sleep(0)
    begun[1].set_result([6])
    with pytest.raises(QueueFull, match="have waited"):
        await late
    # What was begun is brought to its end.
    assert await under_way == [2, 4, 6]
    await batches.idle()
    assert len(begun) == 2


async def test_a_failure_reaches_everyone_in_the_batch_and_nobody_else() -> None:
    def work(items: Sequence[int]) -> list[int]:
        if 13 in items:
            raise ValueError("no 13")
        return list(items)

    batches: Batcher[int, int] = Batcher(work, Limits(items=2), size_of=lambda _: 1)
    calls = ([1], [13], [2, 3], [4, 13, 5], [6])
    outcomes = await asyncio.gather(*map(batches.submit, calls), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [BatchFailed, BatchFailed, list, BatchFailed, list]
    assert str(outcomes[1]) == "no 13"
    await batches.idle()


async def test_a_caller_that_has_left_is_not_worked_for() -> None:
    work = Work()
    batches = batcher(work, Limits(items=2))
    staying, leaving = asyncio.create_task(batches.submit([1, 2])), asyncio.create_task(batches.submit([3, 4]))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying == [2, 4]
    await batches.idle()
    assert work.batches == [[1, 2]]
