"""`make faults`: every scenario under load, the audit of each, and build/faults.json. Ends with 1 unless all is clean.

--messages are spread over --users in each scenario; --only names some of the scenarios.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import logging
import random
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import aiohttp
import structlog

from e2e.faults import overload, plant, replication, writers
from e2e.faults.ledger import WRONGS, Audit, Kept, Sent, audit
from e2e.faults.load import OUTBOX, User, outbox
from e2e.faults.proxy import Network
from e2e.faults.scenarios import SCENARIOS, Scenario

OUT = Path(__file__).parents[2] / "build" / "faults.json"
READERS = 8
CALM = SCENARIOS[0].name
REPLICATION, WRITERS, OVERLOAD = "replication", "writers", "overload"


@dataclass(frozen=True)
class Row:
    """One scenario's result. Times in seconds."""

    name: str
    audit: Audit
    retries: int
    seconds: float
    rate: float
    """Messages a second."""
    p50_s: float
    p99_s: float
    longest_gap_s: float
    """The longest time in which no user at all heard an answer."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """What else the scenario measures."""
    misses: Sequence[str] = ()
    """The bars that it does not hold, in words."""


async def run(
    scenario: Scenario, users: int, messages: int, at_least_s: float, seed: int, calm: Mapping[str, float] | None
) -> Row:
    """One scenario with a plant of its own."""
    async with (
        plant.running(scenario.layout) as parts,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        crowd = [User(number, parts.urls, session, random.Random(seed + number)) for number in range(users)]  # noqa: S311  The same load again, no secret.
        began_s = time.monotonic()
        harm = asyncio.create_task(_again_and_again(scenario, parts))
        try:
            async with asyncio.TaskGroup() as group:
                for user in crowd:
                    group.create_task(user.talk(messages // users, began_s + at_least_s))
            took_s = time.monotonic() - began_s
        finally:
            harm.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await harm
        await _healed(parts)
        sent = {user.uid: user.sent for user in crowd}
        kept = await _kept(session, parts.urls[-1], sent)
    deltas = sorted(took_s for user in crowd for took_s in user.first_delta_s)
    figures = {"first_delta_p50_s": _share(deltas, 0.5), "first_delta_p99_s": _share(deltas, 0.99)}
    took = sorted(one.took_s for user in crowd for one in user.sent)
    heard_s = sorted([began_s, *(at for user in crowd for at in user.answered_at_s)])
    figures["longest_gap_s"] = max(later - earlier for earlier, later in itertools.pairwise(heard_s))
    return Row(
        scenario.name,
        audit(sent, kept),
        sum(user.retries for user in crowd),
        took_s,
        len(took) / took_s,
        statistics.median(took),
        took[int(0.99 * (len(took) - 1))],
        figures["longest_gap_s"],
        figures,
        scenario.misses(figures, calm),
    )


def _share(ordered: Sequence[float], share: float) -> float:
    return ordered[int(share * (len(ordered) - 1))] if ordered else 0.0


async def run_overload(seconds: float, seed: int) -> Row:
    """Three times the load that the model can bear."""
    began_s = time.monotonic()
    found = await overload.run(seconds, seed)
    took_s = time.monotonic() - began_s
    figures = {name: value for name, value in asdict(found).items() if name != "audit"}
    messages = found.audit.messages
    p50_s, p99_s = found.calm_p99_s, found.accepted_p99_s
    return Row(OVERLOAD, found.audit, 0, took_s, messages / took_s, p50_s, p99_s, 0.0, figures, found.misses())


async def run_writers(messages: int) -> Row:
    """Many writers on one conversation."""
    found = await writers.run(messages)
    counts = Audit(found.messages, found.lost, found.duplicated, found.reordered, 0, 0, ())
    figures = {"strange_entries_of_the_history": float(found.strange)}
    rate = found.messages / found.seconds
    mean_s = writers.WRITERS / rate
    return Row(WRITERS, counts, 0, found.seconds, rate, mean_s, mean_s, 0.0, figures, found.misses())


async def run_replication() -> Row:
    """A primary that is lost, with and without replies that wait for its replica."""
    began_s = time.monotonic()
    without, waiting = await replication.run(0), await replication.run(1)
    took_s = time.monotonic() - began_s
    figures = {
        **{f"without_waiting_{name}": float(value) for name, value in asdict(without).items()},
        **{f"waiting_{name}": float(value) for name, value in asdict(waiting).items()},
    }
    messages = waiting.acknowledged
    counts = Audit(messages, waiting.lost, 0, 0, 0, 0, ())
    return Row(
        REPLICATION, counts, 0, took_s, messages / replication.TALK_S, waiting.p50_s, waiting.p50_s, 0.0, figures
    )


async def _again_and_again(scenario: Scenario, parts: plant.Plant) -> None:
    while True:
        await scenario.fault(parts)


async def _healed(parts: plant.Plant) -> None:
    """Undo what the scenario was in the middle of."""
    parts.models.heal()
    parts.clock.set(0.0)
    if parts.intents is not None:
        parts.intents.set(Network.UP)
    if parts.state is not None:
        parts.state.thaw()
        await asyncio.to_thread(parts.state.ask, "CONFIG", "SET", "maxmemory", "0")
    # The last gateway may have been ended a moment ago.
    await parts.gateways[-1].stop()
    await parts.gateways[-1].start()


async def _kept(session: aiohttp.ClientSession, url: str, sent: dict[str, list[Sent]]) -> dict[str, list[Kept]]:
    slots = asyncio.Semaphore(READERS)

    async def one(uid: str) -> list[Kept]:
        async with slots:
            return await outbox(session, url, uid, sent[uid][-1].message_id)

    return dict(zip(sent, await asyncio.gather(*map(one, sent)), strict=True))


def main() -> int:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=16_000, help="of each scenario")
    parser.add_argument("--users", type=int, default=128)
    parser.add_argument("--at-least", type=float, default=0.0, metavar="SECONDS", help="of each scenario")
    names = [*(each.name for each in SCENARIOS), REPLICATION, WRITERS, OVERLOAD]
    parser.add_argument("--only", nargs="*", default=names, choices=names, metavar="NAME")
    parser.add_argument("--writers", type=int, default=10_048, metavar="MESSAGES", help="of 64 writers on one user")
    parser.add_argument("--overload", type=float, default=60.0, metavar="SECONDS", help="of three times the load")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if not options.users <= options.messages <= options.users * OUTBOX:
        parser.error(f"--messages {options.messages}: give each of {options.users} users 1 to {OUTBOX}")
    # What goes through the store in this very process would log each connection.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    print(
        f"{'scenario':16s} {'messages':>8s} {'lost':>5s} {'twice':>5s} {'order':>5s} {'leaked':>6s} {'refused':>7s}"
        f" {'retries':>7s} {'a second':>8s} {'p50':>7s} {'p99':>7s} {'longest gap':>11s}"
    )
    rows: list[Row] = []
    for scenario in SCENARIOS:
        if scenario.name in options.only:
            calm = next((row.figures for row in rows if row.name == CALM), None)
            load = options.users, options.messages, options.at_least, options.seed
            rows.append(asyncio.run(run(scenario, *load, calm)))
            _show(rows[-1])
    if REPLICATION in options.only:
        rows.append(asyncio.run(run_replication()))
        _show(rows[-1])
    if WRITERS in options.only:
        rows.append(asyncio.run(run_writers(options.writers)))
        _show(rows[-1])
    if OVERLOAD in options.only:
        rows.append(asyncio.run(run_overload(options.overload, options.seed)))
        _show(rows[-1])
    totals = {name: sum(getattr(row.audit, name) for row in rows) for name in ("messages", *WRONGS)}
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps({**totals, "scenarios": [asdict(row) for row in rows]}, indent=2), encoding="utf-8")
    print(", ".join(f"{count} {name.replace('_', ' ')}" for name, count in totals.items()))
    return 0 if all(row.audit.is_clean and not row.misses for row in rows) else 1


def _show(row: Row) -> None:
    counts = row.audit
    print(
        f"{row.name:16s} {counts.messages:8d} {counts.lost:5d} {counts.duplicated:5d} {counts.reordered:5d}"
        f" {counts.leaked:6d} {counts.given_up:7d} {row.retries:7d} {row.rate:8.0f} {row.p50_s:5.2f} s"
        f" {row.p99_s:5.2f} s {row.longest_gap_s:9.1f} s",
        flush=True,
    )
    figures = ", ".join(f"{name.replace('_', ' ')} {value:.2f}" for name, value in row.figures.items())
    for line in (*([figures] if figures else []), *row.misses, *counts.findings):
        print(f"    {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
