"""What only a server can show: many writers at once, stored schemas, forgotten scripts, key lifetimes, restarts."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, Literal

import msgspec
import pytest
from chatflow_api import names
from chatflow_runtime.domain.conversation import SCHEMA, Conversation, Event, Scene
from chatflow_runtime.domain.reply import OutboxItem, Reply
from chatflow_runtime.errors import StateError, StateSchemaTooNew, StateUnavailable
from chatflow_runtime.ports import Answered, Claimed, ConversationStore, Letter, RecordKind, Rejected, Turn, Waiting
from chatflow_runtime.state.codec import head
from chatflow_runtime.state.connection import Connection
from chatflow_runtime.state.redis_due import RedisDueStore
from chatflow_runtime.state.redis_store import RedisStore, open_redis_store
from chatflow_runtime.state.wakeups import Wakeups, WorkBell
from tests_runtime.state_cases import (
    PATIENT,
    RULES,
    ManualClock,
    new_flow,
    notice_text,
    outcome,
    record,
    server_case,
)
from tests_runtime.state_servers import ServerKind, Servers, installed, running_server

UNHURRIED = replace(RULES, history_messages=200, lease_ms=60_000, waiter_ms=60_000)
"""For tests in real time: a busy machine must not cost anyone a lease."""


@pytest.fixture(params=installed())
def url(request: pytest.FixtureRequest, state_servers: Servers) -> str:
    """A server's URL."""
    return state_servers(ServerKind(request.param)).url


async def converse(store: ConversationStore, turn: Turn) -> OutboxItem:
    """A turn as the gateway takes it: wait for one's place, then commit, or take the reply that is there."""
    with store.watch(turn.uid) as watch:
        while True:
            match await store.load(turn):
                case Claimed(conversation):
                    return (await store.commit(turn, conversation, outcome(turn))).item
                case Answered(item):
                    return item
                case Waiting(retry_ms=retry_ms):
                    await watch.wait(retry_ms / 1000)
                case Rejected() as rejected:
                    raise AssertionError(rejected)


async def test_64_writers_at_two_gateways_lose_nothing_and_keep_their_order(url: str) -> None:
    flow = new_flow()
    async with (
        open_redis_store(url, flow, UNHURRIED, patience=PATIENT) as left,
        open_redis_store(url, flow, UNHURRIED, patience=PATIENT) as right,
    ):
        turns = [Turn("u", f"{'LR'[n % 2]}{n:02}", f"owner-{n}", f"text {n}") for n in range(64)]
        replies = await asyncio.gather(*(converse((left, right)[n % 2], turn) for n, turn in enumerate(turns)))
        history = await left.history("u")
        assert len(history) == 128
        asked = [message.message_id for message in history if message.role == "user"]
        assert [message.message_id for message in history if message.role == "assistant"] == asked
        for side in "LR":
            mine = [message_id for message_id in asked if message_id.startswith(side)]
            assert mine == [turn.message_id for turn in turns if turn.message_id.startswith(side)]
        outbox = await right.outbox("u", "0")
        assert [entry.item.message_id for entry in outbox if isinstance(entry.item, Reply)] == asked
        assert {entry.id for entry in outbox} == {entry.id for entry in replies}
        last = await left.load(Turn("u", "last", "o", "?"))
        assert isinstance(last, Claimed)
        assert last.conversation.revision == 64


async def test_64_attempts_at_one_message_give_one_answer(url: str) -> None:
    async with open_redis_store(url, new_flow(), UNHURRIED, patience=PATIENT) as store:
        turns = [Turn("u", "m", f"owner-{n}", "text") for n in range(64)]
        replies = await asyncio.gather(*(converse(store, turn) for turn in turns))
        assert len({reply.id for reply in replies}) == 1
        assert len(await store.outbox("u", "0")) == 1
        assert len(await store.history("u")) == 2


async def snapshot(raw: Connection, flow: str) -> dict[bytes, bytes]:
    """Every key of a flow in the server's own serialisation."""
    return {key: await raw.call("DUMP", key) for key in sorted(await raw.call("KEYS", f"*{{{flow}.*"))}


async def test_a_newer_schema_is_refused_and_its_bytes_stay(url: str) -> None:
    flow, raw = new_flow(), Connection(url, patience=PATIENT)
    await raw.open()
    async with server_case(url, flow=flow) as case:
        turn, number = case.turn("m1"), names.partition("u")
        newer = {"v": SCHEMA + 1, "r": 3, "s": "a scene of tomorrow", "c": {"by": turn.owner}, "q": 7}
        await raw.call("SET", names.conversation_key(flow, "u"), msgspec.msgpack.encode(newer))
        await raw.call("ZADD", names.due_key(flow, number), case.time.at_ms + 1000, "u")
        before = await snapshot(raw, flow)
        attempts: dict[str, Any] = {
            "load": lambda: case.store.load(turn),
            "renew": lambda: case.store.renew(turn),
            "commit": lambda: case.store.commit(turn, Conversation(revision=3), outcome(turn)),
            "release": lambda: case.store.release(turn),
            "rate": lambda: case.store.rate("u", record(kind=RecordKind.RATING)),
        }
        for name, attempt in attempts.items():
            with pytest.raises(StateSchemaTooNew, match=f"schema {SCHEMA + 1}.*up to {SCHEMA}"):
                await attempt()
            assert await snapshot(raw, flow) == before, name
        case.time.advance(2000)
        assert await case.due.sweep(number) == 0
        conversation_key = names.conversation_key(flow, "u").encode()
        assert (await snapshot(raw, flow))[conversation_key] == before[conversation_key]
        assert await raw.call("ZCARD", names.due_key(flow, number)) == 1, "the newer release's worker still finds it"
    await raw.close()


async def test_newer_history_outbox_and_records_are_refused_and_stay(url: str) -> None:
    flow, raw = new_flow(), Connection(url, patience=PATIENT)
    await raw.open()
    async with server_case(url, flow=flow) as case:
        newer = head(SCHEMA + 1) + msgspec.msgpack.encode({"said": "tomorrow"})
        await raw.call("RPUSH", names.history_key(flow, "u"), newer)
        await raw.call("XADD", names.outbox_key(flow, "u"), "*", "r", newer)
        await raw.call("XADD", names.records_key(flow, 7), "*", "d", newer)
        before = await snapshot(raw, flow)
        for attempt in (case.store.history("u"), case.store.outbox("u", "0"), case.due.records(7, 10)):
            with pytest.raises(StateSchemaTooNew):
                await attempt
        assert await snapshot(raw, flow) == before
    await raw.close()


async def test_an_older_value_that_lacks_fields_is_read_and_written_in_the_present_schema(url: str) -> None:
    flow, raw = new_flow(), Connection(url, patience=PATIENT)
    await raw.open()
    async with server_case(url, flow=flow) as case:
        key = names.conversation_key(flow, "u")
        await raw.call("SET", key, msgspec.msgpack.encode({"v": 0, "r": 3, "s": "collect"}))
        turn = case.turn("m1")
        claimed = await case.claim(turn)
        assert claimed.conversation == Conversation(scene=Scene.COLLECT, revision=3)
        assert (await case.store.commit(turn, claimed.conversation, outcome(turn))).revision == 4
        assert b"\xa1v\x01" in await raw.call("GET", key), "the map holds v: 1"
    await raw.close()


async def test_a_value_that_is_no_state_is_an_error_that_says_so(url: str) -> None:
    flow, raw = new_flow(), Connection(url, patience=PATIENT)
    await raw.open()
    async with server_case(url, flow=flow) as case:
        await raw.call("RPUSH", names.history_key(flow, "u"), b"no msgpack at all")
        with pytest.raises(StateError, match="damaged"):
            await case.store.history("u")
    await raw.close()


async def test_scripts_that_the_server_forgot_are_sent_again(url: str) -> None:
    raw = Connection(url, patience=PATIENT)
    await raw.open()
    async with server_case(url) as case:
        await case.answer("m0")
        await raw.call("SCRIPT", "FLUSH")
        claimed = await case.claim(case.turn("m1"))
        assert len(claimed.conversation.history) == 2
        await raw.call("SCRIPT", "FLUSH")
        await case.answer("m1", uid="v")
        await raw.call("SCRIPT", "FLUSH")
        case.time.advance(RULES.ttl_ms)
        assert await case.due.sweep(names.partition("v")) == 1
    await raw.close()


async def test_keys_share_their_partition_s_tag_and_outlive_the_deadline_but_not_for_ever(url: str) -> None:
    flow, raw = new_flow(), Connection(url, patience=PATIENT)
    await raw.open()
    async with server_case(url, flow=flow) as case:
        turn = case.turn("m1")
        claimed = await case.claim(turn)
        await case.store.commit(turn, claimed.conversation, outcome(turn, Event.ANSWERED, None, record()))
        tag = names.hash_tag(flow, names.partition("u"))
        keys = [key.decode() for key in await raw.call("KEYS", f"*{{{flow}.*")]
        assert len(keys) == 6
        assert all(f":{tag}" in key for key in keys)
        makers = (names.conversation_key, names.history_key, names.replies_key, names.outbox_key)
        expiring = [maker(flow, "u") for maker in makers]
        for _ in range(2):
            for key in expiring:
                left_ms = await raw.call("PTTL", key)
                assert RULES.ttl_ms < left_ms <= RULES.ttl_ms + RULES.keep_ms
                await raw.call("PEXPIRE", key, 60_000)
            case.time.advance(RULES.keep_ms // 2 + 1)
            await case.answer(f"m{case.time.at_ms}")
    await raw.close()


async def test_without_a_clock_the_server_s_time_counts(url: str) -> None:
    flow, raw = new_flow(), Connection(url, patience=PATIENT)
    await raw.open()

    async def server_ms() -> int:
        seconds, microseconds = await raw.call("TIME")
        return int(seconds) * 1000 + int(microseconds) // 1000

    async with open_redis_store(url, flow, RULES, patience=PATIENT) as store:
        before_ms = await server_ms()
        await converse(store, Turn("u", "m", "o", "text"))
        after_ms = await server_ms()
        due_ms = float(await raw.call("ZSCORE", names.due_key(flow, names.partition("u")), "u"))
        assert before_ms <= due_ms - RULES.ttl_ms + RULES.notice_ms <= after_ms
    await raw.close()


async def test_a_sweep_that_crashes_half_way_is_taken_up_after_its_lease(url: str) -> None:
    flow, raw = new_flow(), Connection(url, patience=PATIENT)
    await raw.open()

    def crash(kind: Literal["closing", "ended"], seconds: float) -> str:
        raise ConnectionResetError(f"{kind} {seconds}")

    async with server_case(url, flow=flow) as case:
        number = names.partition("u")
        await case.answer("m1")
        case.time.advance(RULES.ttl_ms)
        with pytest.raises(ConnectionResetError):
            await RedisDueStore(raw, flow, RULES, crash, case.time.clock).sweep(number)
        assert await case.due.sweep(number) == 0
        case.time.advance(RULES.sweep_lease_ms)
        assert await case.due.sweep(number) == 1
        assert len(await case.store.outbox("u", "0")) == 2
    await raw.close()


async def writes(raw: Connection) -> int:
    """Changes to the server's data set so far."""
    told = (await raw.call("INFO", "persistence")).decode()
    return next(int(line.split(":")[1]) for line in told.splitlines() if line.startswith("rdb_changes_since_last_save"))


async def test_keeping_all_partitions_is_one_write_and_keeps_them_for_good(url: str) -> None:
    flow, raw = new_flow(), Connection(url, patience=PATIENT)
    await raw.open()
    async with server_case(url, flow=flow) as case:
        ownership = case.ownership()
        first = dict(await ownership.refresh())
        key = names.lease_key(flow, 7)
        whole_ms = await raw.call("PTTL", key)
        # As after a long time: the lease's key must not end while it is held, or tokens would begin anew.
        await raw.call("PEXPIRE", key, whole_ms // 2)
        case.time.advance(RULES.partition_lease_ms // 2)
        before = await writes(raw)
        assert dict(await ownership.refresh()) == first
        assert await writes(raw) - before == 2
        assert await raw.call("PTTL", key) > whole_ms // 2
        case.time.advance(RULES.partition_lease_ms // 2)
        assert dict(await ownership.refresh()) == first
        assert await writes(raw) - before == 3
    await raw.close()


@pytest.mark.parametrize("kind", installed())
async def test_a_restarted_server_is_unavailable_and_then_serves_again(kind: ServerKind) -> None:
    with running_server(kind) as server:
        async with AsyncExitStack() as stack:
            connection, wakeups = Connection(server.url, patience=PATIENT), Wakeups(server.url, "f", patience=PATIENT)
            for part in (connection, wakeups):
                await part.open()
                stack.push_async_callback(part.close)
            store = RedisStore(connection, wakeups, "f", RULES, ManualClock().clock)
            turn = Turn("u", "m1", "o", "text")
            assert isinstance(await store.load(turn), Claimed)
            with store.watch("u") as watch:
                server.kill()
                with pytest.raises(StateUnavailable, match="try again"):
                    await asyncio.gather(store.ping(), store.ping())
                with pytest.raises(StateUnavailable):
                    await store.load(turn)
                server.start()
                await connection.connected()
                await store.ping()
                assert await watch.wait(60), "whoever waits is woken, since wake-ups may have been lost"
            await converse(store, turn)


async def test_a_closing_notice_is_never_sent_twice_by_two_workers(url: str) -> None:
    flow = new_flow()
    async with server_case(url, flow=flow) as first, server_case(url, flow=flow) as second:
        number = names.partition("u")
        await first.answer("m1")
        for case in (first, second):
            case.time.advance(RULES.ttl_ms - RULES.notice_ms)
        swept = await asyncio.gather(*(case.due.sweep(number) for case in (first, second) * 4))
        assert sum(swept) == 1
        assert [entry.item.text for entry in await first.store.outbox("u", "0")] == [
            "reply to m1",
            notice_text("closing", 30),
        ]


async def test_a_user_whom_a_slow_worker_takes_again_is_told_once(url: str) -> None:
    flow, raw = new_flow(), Connection(url, patience=PATIENT)
    await raw.open()
    async with server_case(url, flow=flow) as case:
        number = names.partition("u")
        await case.answer("m1")
        case.time.advance(RULES.ttl_ms - RULES.notice_ms)
        for touched in (1, 0):
            await raw.call("ZADD", names.due_key(flow, number), case.time.at_ms, "u")
            assert await case.due.sweep(number) == touched
        assert len(await case.store.outbox("u", "0")) == 2
    await raw.close()


async def test_an_ended_conversation_is_no_longer_among_the_due(url: str) -> None:
    flow, raw = new_flow(), Connection(url, patience=PATIENT)
    await raw.open()
    async with server_case(url, flow=flow) as case:
        due_key = names.due_key(flow, names.partition("u"))
        for number, end in enumerate((Event.SATISFIED, Event.TIMED_OUT, Event.SATISFIED)):
            await case.answer(f"first {number}")
            assert await raw.call("ZCARD", due_key) == 1
            await case.answer(f"second {number}", event=end)
            await case.store.rate("u", record(kind=RecordKind.RATING))
            assert await raw.call("ZCARD", due_key) == 0, end
    await raw.close()


async def test_a_long_conversation_takes_no_more_room_than_its_bounds(url: str) -> None:
    flow, raw = new_flow(), Connection(url, patience=PATIENT)
    await raw.open()
    rules = replace(RULES, history_messages=6, outbox_items=8)
    async with server_case(url, rules, flow) as case:
        for number in range(64):
            await case.answer(f"m{number}")
            assert await raw.call("LLEN", names.history_key(flow, "u")) <= 6 + 8
            assert await raw.call("XLEN", names.outbox_key(flow, "u")) <= 8 + rules.tidy_turns
            assert await raw.call("HLEN", names.replies_key(flow, "u")) <= 2 * 8
    await raw.close()


async def test_a_worker_hears_of_the_partition_of_a_new_message_and_of_its_own_connection(url: str) -> None:
    heard: asyncio.Queue[int | None] = asyncio.Queue()
    async with server_case(url, flow=(flow := new_flow())) as case:
        bell = WorkBell(url, flow, heard.put_nowait, patience=PATIENT)
        await bell.open()
        try:
            assert await heard.get() is None
            await case.inbox.accept(Letter("u", "m1", "text", 1))
            assert await heard.get() == names.partition("u")
            await case.inbox.accept(Letter("u", "m1", "text", 1))
            await case.inbox.accept(Letter("v", "m1", "text", 1))
            assert await heard.get() == names.partition("v")
        finally:
            await bell.close()
