"""What a lost primary takes along, with and without waiting for its replica: users talk through the store while what
goes to the replica takes a while on its way; then the primary's machine is lost, together with all that was on the way.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from chatflow_api import names
from chatflow_runtime.errors import StateError
from chatflow_runtime.ports import Claimed, Turn
from chatflow_runtime.state.durability import Durability
from chatflow_runtime.state.link import Link, link_to
from chatflow_runtime.state.redis_store import RedisStore
from chatflow_runtime.state.scripts import render
from chatflow_runtime.state.wakeups import Wakeups
from tests_runtime.state_cases import RULES, outcome
from tests_runtime.state_servers import StateServer, free_ports, installed, wait_until

from e2e.faults.proxy import Network, Proxy, proxied

DELAY_S = 0.02
"""From the primary to the replica."""
WAIT_MS = 200
USERS = 64
TALK_S = 3.0
FLOW = "replication"
SYNC_S = 60.0


@dataclass(frozen=True)
class Loss:
    """One primary's."""

    acknowledged: int
    lost: int
    """Of them, in no outbox of the replica."""
    p50_s: float
    """Of load and commit together."""


@dataclass
class Talk:
    """What users were told."""

    acknowledged: set[tuple[str, str]] = field(default_factory=set)
    took_s: list[float] = field(default_factory=list)

    async def go_on(self, store: RedisStore, uid: str) -> None:
        """One turn after another, until the server is gone."""
        number = 0
        while True:
            turn = Turn(uid, f"m{number}", f"{uid}-{number}", "text", is_metered=False)
            began_s = time.monotonic()
            try:
                claimed = await store.load(turn)
                if not isinstance(claimed, Claimed):
                    raise TypeError(f"{uid} has nobody beside it, and yet the load gave {claimed!r}")
                await store.commit(turn, claimed.conversation, outcome(turn))
            except StateError:
                return
            self.took_s.append(time.monotonic() - began_s)
            self.acknowledged.add((uid, turn.message_id))
            number += 1


async def run(replicas: int) -> Loss:
    """One primary that is lost, with so many replicas that replies wait for."""
    async with _servers() as (primary, replica, way):
        talk = Talk()
        async with _store(primary.url, replicas) as store, asyncio.TaskGroup() as group:
            for number in range(USERS):
                group.create_task(talk.go_on(store, f"u{number}"))
            await asyncio.sleep(TALK_S)
            # The machine is gone, with what its network had not delivered.
            way.set(Network.CUT)
            primary.kill()
        replica.ask("REPLICAOF", "NO", "ONE")
        kept = {(uid, name) for uid in {uid for uid, _ in talk.acknowledged} for name in _answered(replica, uid)}
    lost = len(talk.acknowledged - kept)
    return Loss(len(talk.acknowledged), lost, statistics.median(talk.took_s))


@asynccontextmanager
async def _servers() -> AsyncIterator[tuple[StateServer, StateServer, Proxy]]:
    """(primary, replica, what lies between them)."""
    async with AsyncExitStack() as stack:
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chatflow-replica-"))) for _ in range(2)]
        ports = free_ports(2)
        kind = installed()[0]
        primary = StateServer(kind, folders[0], ("--repl-diskless-sync-delay", "0"), ports[0])
        stack.callback(primary.kill)
        primary.start()
        way = await stack.enter_async_context(proxied(ports[0]))
        replica = StateServer(kind, folders[1], ("--replicaof", "127.0.0.1", str(way.port)), ports[1])
        stack.callback(replica.kill)
        await asyncio.to_thread(replica.start)
        up = "master_link_status:up"
        await asyncio.to_thread(wait_until, lambda: up in str(replica.ask("INFO", "replication")), SYNC_S)
        way.delay_s = DELAY_S
        yield primary, replica, way


@asynccontextmanager
async def _store(url: str, replicas: int) -> AsyncIterator[RedisStore]:
    scripts = render(RULES).all()
    link, wakeups = link_to(url, scripts=scripts), Wakeups(url, FLOW)
    lasting = link
    if replicas:
        lasting = link_to(url, scripts=scripts, durability=partial(Durability, replicas, WAIT_MS, lambda: None))
    opened: list[Link | Wakeups] = [link, wakeups, *([lasting] if replicas else [])]
    try:
        for each in opened:
            await each.open()
        yield RedisStore(link, wakeups, FLOW, RULES, lasting=lasting)
    finally:
        for each in opened:
            await each.close()


def _answered(server: StateServer, uid: str) -> list[str]:
    """The message ids whose replies a server remembers."""
    return [str(name) for name in server.ask("HKEYS", names.replies_key(FLOW, uid))]
