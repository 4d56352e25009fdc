"""The worker over the in-memory twin and a real server, and the files that it writes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from chatflow_api.names import PARTITIONS, partition
from chatflow_runtime.adapters.record_files import RecordFiles
from chatflow_runtime.domain.conversation import Event
from chatflow_runtime.errors import StateUnavailable
from chatflow_runtime.ports import DueStore, Record, RecordKind
from chatflow_runtime.worker import Worker
from structlog.testing import capture_logs
from tests_runtime.state_cases import RULES, Case, memory_case, outcome, record, server_case
from tests_runtime.state_servers import ServerKind, Servers, installed


class Ticks:
    """Stands in for sleep: the worker pauses until the test lets it go on."""

    def __init__(self) -> None:
        self.pauses_s: list[float] = []
        self._paused: asyncio.Queue[float] = asyncio.Queue()
        self._go = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        """What the worker calls."""
        self._go.clear()
        self._paused.put_nowait(seconds)
        await self._go.wait()

    async def passed(self) -> float:
        """After one more tick: the pause in seconds that follows it."""
        self._go.set()
        return await self._paused.get()


class Failing:
    """A DueStore whose named methods fail while `is_down`; one that stands before a real store."""

    def __init__(self, due: DueStore, *methods: str) -> None:
        self._due = due
        self._methods = methods
        self.is_down = True

    def _check(self, method: str) -> None:
        if self.is_down and method in self._methods:
            raise StateUnavailable(f"{method}: the server is down")

    async def sweep(self, partition: int) -> int:
        self._check("sweep")
        return await self._due.sweep(partition)

    async def records(self, partition: int, limit: int) -> Sequence[Record]:
        self._check("records")
        return await self._due.records(partition, limit)

    async def discard(self, partition: int, records: Sequence[Record]) -> None:
        self._check("discard")
        await self._due.discard(partition, records)


def lines(folder: Path) -> dict[str, list[Record]]:
    """What the files hold, by name."""
    decode = msgspec.json.Decoder(Record).decode_lines
    return {path.name: decode(path.read_bytes()) for path in sorted(folder.iterdir())}


async def commit_records(case: Case, uid: str, *records: Record) -> None:
    turn = case.turn("m1", uid)
    claimed = await case.claim(turn)
    await case.store.commit(turn, claimed.conversation, outcome(turn, Event.ANSWERED, None, *records))


async def stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()


@pytest.mark.parametrize("kind", installed())
async def test_a_worker_sends_notices_ends_conversations_and_keeps_records(
    kind: ServerKind, state_servers: Servers, tmp_path: Path
) -> None:
    async with server_case(state_servers(kind).url) as case:
        users = [f"user-{number}" for number in range(40)]
        assert len({partition(uid) for uid in users}) > 20
        for uid in users:
            await commit_records(case, uid, record(uid, text="退款多久到账？", confidence=0.4))
        await case.store.rate(users[0], record(users[0], RecordKind.RATING, stars=5))
        ticks = Ticks()
        worker = Worker(case.due, RecordFiles(tmp_path / "records"), case.ownership(), wait=ticks.wait)
        running = asyncio.create_task(worker.run())
        assert await ticks.passed() == 1.0
        kept = lines(tmp_path / "records")
        assert list(kept) == ["labelling-2026-09-21.jsonl", "rating-2026-09-21.jsonl"]
        assert sorted(row.uid for row in kept["labelling-2026-09-21.jsonl"]) == sorted(users)
        assert [row.fields for row in kept["rating-2026-09-21.jsonl"]] == [{"stars": 5}]
        assert not any([await case.due.records(number, 10) for number in range(PARTITIONS)])
        case.time.advance(RULES.ttl_ms - RULES.notice_ms)
        await ticks.passed()
        case.time.advance(RULES.notice_ms)
        await ticks.passed()
        await ticks.passed()
        for uid in users:
            texts = [entry.item.text for entry in await case.store.outbox(uid, "0")]
            assert texts == ["reply to m1", "closing 30", "ended 0"]
        assert lines(tmp_path / "records") == kept
        await stop(running)


@pytest.mark.parametrize("method", ["sweep", "records", "discard"])
async def test_an_outage_is_logged_when_it_begins_and_ends_and_costs_nothing(method: str, tmp_path: Path) -> None:
    async with memory_case() as case:
        await commit_records(case, "u", record(n=1), record(n=2))
        due, ticks = Failing(case.due, method), Ticks()
        worker = Worker(due, RecordFiles(tmp_path), case.ownership(), wait=ticks.wait, jitter=lambda: 1.0)
        with capture_logs() as logs:
            running = asyncio.create_task(worker.run())
            assert [await ticks.passed() for _ in range(7)] == [2.0, 4.0, 5.0, 5.0, 5.0, 5.0, 5.0]
            due.is_down = False
            assert await ticks.passed() == 1.0
            await ticks.passed()
        outage = [entry["event"] for entry in logs if entry["event"] != "worker.records_kept"]
        assert outage == ["worker.failing", "worker.recovered"]
        assert [row.fields for row in lines(tmp_path)["labelling-2026-09-21.jsonl"]] == [{"n": 1}, {"n": 2}]
        assert not await case.due.records(partition("u"), 10)
        await stop(running)


async def test_a_failing_sweep_does_not_keep_records_from_their_sink(tmp_path: Path) -> None:
    async with memory_case() as case:
        await commit_records(case, "u", record(n=1))
        with pytest.raises(StateUnavailable):
            await Worker(Failing(case.due, "sweep"), RecordFiles(tmp_path), case.ownership()).tick()
        assert len(lines(tmp_path)["labelling-2026-09-21.jsonl"]) == 1


async def test_a_sink_that_cannot_write_loses_nothing(tmp_path: Path) -> None:
    async with memory_case() as case:
        await commit_records(case, "u", record(n=1))
        blocked = tmp_path / "records"
        blocked.write_text("a file where the folder should be")
        worker = Worker(case.due, RecordFiles(blocked), case.ownership())
        with pytest.raises(OSError, match="exists"):
            await worker.tick()
        blocked.unlink()
        await worker.tick()
        assert [row.fields for row in lines(blocked)["labelling-2026-09-21.jsonl"]] == [{"n": 1}]


async def test_a_crash_between_write_and_discard_keeps_each_record_once(tmp_path: Path) -> None:
    async with memory_case() as case:
        await commit_records(case, "u", record(n=1), record(n=2))
        with pytest.raises(StateUnavailable):
            await Worker(Failing(case.due, "discard"), RecordFiles(tmp_path), case.ownership()).tick()
        await case.store.rate("v", record("v", n=3))
        await Worker(case.due, RecordFiles(tmp_path), case.ownership()).tick()
        assert [row.fields["n"] for row in lines(tmp_path)["labelling-2026-09-21.jsonl"]] == [1, 2, 3]


async def test_a_line_cut_short_by_a_crash_is_written_anew(tmp_path: Path) -> None:
    records = [msgspec.structs.replace(record(n=number), id=f"1-{number}") for number in range(3)]
    await RecordFiles(tmp_path).write(records)
    path = tmp_path / "labelling-2026-09-21.jsonl"
    whole = path.read_bytes()
    for cut in (1, 5, len(whole.splitlines(keepends=True)[-1]) - 1):
        path.write_bytes(whole[:-cut])
        await RecordFiles(tmp_path).write(records)
        assert path.read_bytes() == whole


async def test_records_of_two_users_may_share_an_id_and_a_person_s_lines_are_left_alone(tmp_path: Path) -> None:
    first, second = (msgspec.structs.replace(record(uid), id="1-0") for uid in "uv")
    await RecordFiles(tmp_path).write([first])
    path = tmp_path / "labelling-2026-09-21.jsonl"
    with path.open("a") as file:
        file.write("checked up to here\n")
    await RecordFiles(tmp_path).write([first, second, second])
    assert path.read_bytes().splitlines()[1] == b"checked up to here"
    assert len(path.read_bytes().splitlines()) == 3


async def test_records_go_to_the_file_of_their_own_day_in_utc(tmp_path: Path) -> None:
    midnight_ms = 1_790_035_200_000
    days = [
        msgspec.structs.replace(record(), id=f"{number}-0", at_ms=at_ms)
        for number, at_ms in enumerate((midnight_ms - 1, midnight_ms))
    ]
    await RecordFiles(tmp_path).write(days)
    assert list(lines(tmp_path)) == ["labelling-2026-09-21.jsonl", "labelling-2026-09-22.jsonl"]
