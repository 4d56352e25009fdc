"""What a turn's load and commit cost, in CPU of this client and of the server, beside the same over redis-py.

    python e2e/load/state_cost.py [--server redis|valkey] [--turns N] [--rounds N]

Both clients run the same scripts on the same values with 64 turns in flight, in alternating rounds of one process. The
cheapest round counts, since neighbours on shared cores only ever add; the machine's own speed shows in the cost of a
script that does nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import redis.asyncio
from chatflow_runtime.domain.conversation import Event, Memory, Scene
from chatflow_runtime.domain.reply import Citation, Origin, Reply, Rung
from chatflow_runtime.ports import Claimed, Outcome, Turn
from chatflow_runtime.state.connection import Connection, Patience
from chatflow_runtime.state.redis_store import RedisStore
from chatflow_runtime.state.rules import Rules
from chatflow_runtime.state.scripts import Script, render
from chatflow_runtime.state.wakeups import Wakeups
from tests_runtime.state_servers import ServerKind, installed, running_server

IN_FLIGHT = 64
CONVERSATION = 10
RULES = Rules(ttl_ms=600_000, notice_ms=30_000, history_messages=20)
QUESTION = "我上周三买的那件外套到现在还没有发货，请帮我查一下订单状态。"
ANSWER = "您好，现货商品一般在付款后四十八小时内发出，三到五天送达；预售商品以商品页标明的日期为准。" * 3
CITATIONS = tuple(
    Citation(id=f"shipping-{number}", title="什么时候发货？", score=0.9 - number / 20) for number in range(5)
)
NOTHING = b"return 1"


class RedisPy:
    """redis-py (hiredis parser, connection pool) in the place of a Connection."""

    def __init__(self, url: str) -> None:
        self._client = redis.asyncio.Redis.from_url(url, max_connections=IN_FLIGHT)

    async def prepare(self, scripts: Sequence[Script]) -> None:
        for script in scripts:
            await self._client.script_load(script.source.decode())

    async def run(self, script: Script, *args: Any) -> Any:
        return await self._client.execute_command("EVALSHA", script.sha, *args)  # type: ignore[no-untyped-call]

    async def run_then(self, script: Script, args: Sequence[Any], following: Sequence[Any]) -> Any:
        async with self._client.pipeline(transaction=False) as pipeline:
            pipeline.execute_command("EVALSHA", script.sha, *args)
            pipeline.execute_command(*following)
            return await pipeline.execute()

    async def close(self) -> None:
        await self._client.aclose()


@dataclass(frozen=True)
class Cost:
    """CPU in microseconds per operation, and operations per second."""

    client_us: float
    server_us: float
    per_second: float


async def server_cpu_us(connection: Connection) -> float:
    """CPU that the server has used."""
    info = (await connection.call("INFO", "cpu")).decode()
    lines = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    return (float(lines["used_cpu_sys"]) + float(lines["used_cpu_user"])) * 1e6


async def measure(connection: Connection, operations: int, one: Callable[[int, int], Awaitable[object]]) -> Cost:
    """The cost of `one(flight, number)`, IN_FLIGHT of them at a time."""
    each = operations // IN_FLIGHT

    async def flight(place: int) -> None:
        for number in range(each):
            await one(place, number)

    server_us, client_s, begun_s = await server_cpu_us(connection), time.process_time(), time.perf_counter()
    await asyncio.gather(*map(flight, range(IN_FLIGHT)))
    client_s, wall_s = time.process_time() - client_s, time.perf_counter() - begun_s
    done = each * IN_FLIGHT
    return Cost(client_s / done * 1e6, (await server_cpu_us(connection) - server_us) / done, done / wall_s)


def turns_of(store: RedisStore, prefix: str) -> Callable[[int, int], Awaitable[object]]:
    """One whole turn of conversations that have CONVERSATION turns each."""

    async def turn(flight: int, number: int) -> object:
        user = f"{prefix}-{flight}-{number // CONVERSATION}"
        turn = Turn(user, f"m{number}", f"owner-{number}", QUESTION)
        loaded = await store.load(turn)
        assert isinstance(loaded, Claimed)
        reply = Reply(
            message_id=turn.message_id,
            text=ANSWER,
            rung=Rung.L0,
            origin=Origin.KNOWLEDGE,
            scene=Scene.ANSWER,
            intent="shipping",
            confidence=0.93,
            citations=CITATIONS,
        )
        outcome = Outcome(Event.ANSWERED, Memory(slots={"order": "A20260922"}), reply)
        return await store.commit(turn, loaded.conversation, outcome)

    return turn


async def compare(url: str, turns: int, rounds: int) -> dict[str, Cost]:
    """The cost of each subject."""
    connection, redis_py = Connection(url, patience=Patience(timeout_s=60)), RedisPy(url)
    wakeups = Wakeups(url, "cost", patience=Patience(timeout_s=60))
    await connection.open()
    await wakeups.open()
    scripts = render(RULES)
    nothing = Script("nothing", NOTHING, hashlib.sha1(NOTHING, usedforsecurity=False).hexdigest().encode())
    await redis_py.prepare((*scripts.all(), nothing))
    ours = RedisStore(connection, wakeups, "cost", RULES)
    theirs = RedisStore(cast("Connection", redis_py), wakeups, "cost", RULES)
    costs: dict[str, list[Cost]] = {}
    for number in range(rounds + 1):
        subjects = {
            "nothing, multiplexed": lambda *_: connection.run(nothing, 0),
            "nothing, redis-py": lambda *_: redis_py.run(nothing, 0),
            "load + commit, multiplexed": turns_of(ours, f"ours-{number}"),
            "load + commit, redis-py": turns_of(theirs, f"theirs-{number}"),
        }
        for name, one in subjects.items():
            cost = await measure(connection, turns, one)
            if number:
                costs.setdefault(name, []).append(cost)
    await redis_py.close()
    await wakeups.close()
    await connection.close()
    return {
        name: Cost(
            min(cost.client_us for cost in rows),
            min(cost.server_us for cost in rows),
            max(cost.per_second for cost in rows),
        )
        for name, rows in costs.items()
    }


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--server", type=ServerKind, choices=installed(), default=installed()[0])
    arguments.add_argument("--turns", type=int, default=6400, help="turns a round")
    arguments.add_argument("--rounds", type=int, default=5)
    chosen = arguments.parse_args()
    with running_server(chosen.server) as server, asyncio.Runner(loop_factory=_fastest_loop()) as runner:
        costs = runner.run(compare(server.url, chosen.turns, chosen.rounds))
    print(f"{chosen.server}, {IN_FLIGHT} in flight, best of {chosen.rounds} rounds of {chosen.turns}")
    print(f"{'':<28}{'client us':>10}{'server us':>10}{'per second':>12}")
    for name, cost in costs.items():
        print(f"{name:<28}{cost.client_us:>10.1f}{cost.server_us:>10.1f}{cost.per_second:>12.0f}")


def _fastest_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop, as in the gateway, where it can be installed."""
    try:
        import uvloop
    except ImportError:
        return None
    return cast("Callable[[], asyncio.AbstractEventLoop]", uvloop.new_event_loop)


if __name__ == "__main__":
    main()
