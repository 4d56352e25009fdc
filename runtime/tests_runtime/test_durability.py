"""Replies that wait for replicas, over a primary and a real replica: what was acknowledged is there, one WAIT serves
many calls, and replicas that are away hold nobody up for long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from chatflow_api import names
from chatflow_runtime.errors import StateUnavailable
from chatflow_runtime.ports import Claimed, Letter, Turn
from chatflow_runtime.state.durability import Durability
from chatflow_runtime.state.link import link_to
from chatflow_runtime.state.redis_inbox import RedisInbox
from chatflow_runtime.state.redis_store import RedisStore
from chatflow_runtime.state.scripts import render
from chatflow_runtime.state.wakeups import Wakeups
from tests_runtime.state_cases import PATIENT, RULES, new_flow, outcome
from tests_runtime.state_servers import StateServer, free_ports, installed, wait_until

LINK_UP = "master_link_status:up"


@dataclass
class Pair:
    """A primary and its replica."""

    primary: StateServer
    replica: StateServer

    def has(self, key: str) -> bool:
        """Whether the replica has a key."""
        return bool(self.replica.ask("EXISTS", key))

    def waits(self) -> int:
        """How many WAITs the primary has served."""
        stats = str(self.primary.ask("INFO", "commandstats"))
        found = [line for line in stats.splitlines() if line.startswith("cmdstat_wait:")]
        return int(found[0].partition("calls=")[2].partition(",")[0]) if found else 0


@pytest.fixture(scope="module", params=installed())
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    ports = free_ports(2)
    folders: list[Path] = [tmp_path_factory.mktemp(name) for name in ("primary", "replica")]
    primary = StateServer(request.param, folders[0], ("--repl-diskless-sync-delay", "0"), ports[0])
    replica = StateServer(request.param, folders[1], ("--replicaof", "127.0.0.1", str(ports[0])), ports[1])
    try:
        primary.start()
        replica.start()
        wait_until(lambda: LINK_UP in str(replica.ask("INFO", "replication")), 60.0)
        yield Pair(primary, replica)
    finally:
        replica.kill()
        primary.kill()


@dataclass
class Lasting:
    """The stores of a flow, whose lasting link waits for one replica."""

    store: RedisStore
    inbox: RedisInbox
    flow: str
    shortfalls: list[None]

    async def answer(self, uid: str, message_id: str) -> None:
        """A whole turn."""
        turn = Turn(uid, message_id, f"owner of {message_id}", "text")
        claimed = await self.store.load(turn)
        assert isinstance(claimed, Claimed)
        await self.store.commit(turn, claimed.conversation, outcome(turn))

    def outbox(self, uid: str) -> str:
        """Its key."""

        return names.outbox_key(self.flow, uid)


@asynccontextmanager
async def lasting(pair: Pair, timeout_ms: int = 30_000) -> AsyncIterator[Lasting]:
    flow, shortfalls = new_flow(), list[None]()
    link = link_to(pair.primary.url, scripts=render(RULES).all(), patience=PATIENT)
    last = link_to(
        pair.primary.url,
        scripts=render(RULES).all(),
        patience=PATIENT,
        durability=lambda: Durability(1, timeout_ms, lambda: shortfalls.append(None)),
    )
    wakeups = Wakeups(pair.primary.url, flow, patience=PATIENT)
    opened = (link, last, wakeups)
    try:
        for each in opened:
            await each.open()
        store = RedisStore(link, wakeups, flow, RULES, lasting=last)
        yield Lasting(store, RedisInbox(link, flow, RULES, lasting=last), flow, shortfalls)
    finally:
        for each in opened:
            await each.close()


async def test_what_was_acknowledged_is_on_the_replica(pair: Pair) -> None:
    async with lasting(pair) as at:
        for number in range(30):
            await at.answer(f"u{number}", "m")
            assert pair.has(at.outbox(f"u{number}"))
        await at.inbox.accept(Letter("u", "m", "text", 1))
        assert pair.replica.ask("KEYS", f"inbox:{{{at.flow}.*") != []
        assert at.shortfalls == []


async def test_one_wait_serves_all_that_leave_together(pair: Pair) -> None:
    async with lasting(pair) as at:
        await at.answer("u", "first")
        before = pair.waits()
        await asyncio.gather(*(at.inbox.accept(Letter(f"u{number}", "m", "text", 1)) for number in range(64)))
        assert 1 <= pair.waits() - before <= 3


async def test_a_replica_that_is_away_holds_nobody_up_and_is_waited_for_again_once_it_is_back(pair: Pair) -> None:
    async with lasting(pair, timeout_ms=20) as at:
        await at.answer("u", "m0")
        pair.replica.freeze()
        try:
            await at.answer("u", "m1")
            assert at.shortfalls == [None]
            before = pair.waits()
            await at.answer("u", "m2")
            assert pair.waits() == before
        finally:
            pair.replica.thaw()
        async with asyncio.timeout(30):
            number = 3
            while pair.waits() == before or len(at.shortfalls) > 1:
                at.shortfalls[1:] = []
                before = pair.waits()
                await at.answer("u", f"m{number}")
                number += 1
        assert pair.has(at.outbox("u"))


async def test_a_call_that_fails_says_so_and_waits_for_nothing(pair: Pair) -> None:
    async with lasting(pair) as at:
        pair.primary.ask("CONFIG", "SET", "min-replicas-to-write", "3")
        try:
            with pytest.raises(StateUnavailable, match="NOREPLICAS"):
                await at.inbox.accept(Letter("u", "m", "text", 1))
        finally:
            pair.primary.ask("CONFIG", "SET", "min-replicas-to-write", "0")
        await at.inbox.accept(Letter("u", "m", "text", 1))
