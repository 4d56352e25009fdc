"""The queue of flows: each at most once at a time, none lost, none early."""

from __future__ import annotations

import asyncio

from chatflow_operator.work_queue import WorkQueue


async def test_a_key_that_is_asked_for_often_is_taken_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for _ in range(3):
        queue.add("a")
    queue.add("b")
    assert [await queue.take(), await queue.take()] == ["a", "b"]
    assert len(queue) == 0


async def test_a_key_under_way_waits_until_it_is_done() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    assert await queue.take() == "a"
    queue.add("a")
    waiting = asyncio.create_task(queue.take())
    queue.add("b")
    assert await waiting == "b"
    queue.done("a")
    assert await queue.take() == "a"


async def test_the_earliest_time_that_was_asked_for_stands() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("late", 3600)
    queue.add("late", 0.01)
    queue.add("late", 3600)
    async with asyncio.timeout(5):
        assert await queue.take() == "late"
    assert len(queue) == 0


async def test_what_is_due_sooner_is_taken_first() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("second", 0.02)
    queue.add("first", 0.01)
    assert [await queue.take(), await queue.take()] == ["first", "second"]
