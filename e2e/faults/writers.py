"""Many writers on one conversation at once: every message is answered once, in one serial order that keeps each
writer's own, and the history is the tail of that order."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from dataclasses import dataclass

import aiohttp
from chatflow_api.runtime_config import derive
from chatflow_runtime.state.redis_store import open_redis_store
from chatflow_runtime.state.rules import Rules
from tests_runtime.web_clients import events

from e2e.faults import plant
from e2e.faults.ledger import mark

WRITERS = 64
UID = "u0"
RETRY_S = 0.05
READ_S = 60.0


@dataclass(frozen=True)
class Serial:
    """What came of it. All but the first two should be 0."""

    messages: int
    seconds: float
    lost: int
    """Answered to nobody, or not in the outbox."""
    duplicated: int
    reordered: int
    """Of one writer, answered before one that was sent earlier."""
    strange: int
    """Entries of the history that are not the tail of the outbox's order."""

    def misses(self) -> list[str]:
        """The bars that are not held, in words."""
        counts = (self.lost, self.duplicated, self.reordered, self.strange)
        names = ("lost", "duplicated", "reordered", "strange")
        return [
            f"{count} messages of the one conversation were {name}"
            for count, name in zip(counts, names, strict=True)
            if count
        ]


async def run(messages: int) -> Serial:
    """So many messages by all writers together."""
    async with (
        plant.running(plant.Layout()) as parts,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        each, began_s = messages // WRITERS, time.monotonic()
        reading = asyncio.create_task(_outbox(session, parts.urls[-1], each * WRITERS))
        heard = await asyncio.gather(
            *(_write(session, parts.urls[writer % len(parts.urls)], writer, each) for writer in range(WRITERS))
        )
        took_s, kept = time.monotonic() - began_s, await reading
        assert parts.state is not None
        rules = Rules.of(derive(parts.flow))
        async with open_redis_store(parts.state.url, derive(parts.flow).flow.key, rules) as store:
            history = [(message.role, message.message_id) for message in await store.history(UID)]
    tail = [pair for name in kept for pair in (("user", name), ("assistant", name))][-len(history) :]
    seen = [[name for name in kept if name.startswith(f"w{writer}-")] for writer in range(WRITERS)]
    return Serial(
        len(kept),
        took_s,
        each * WRITERS - len(set(kept)) + sum(not is_right for one in heard for is_right in one),
        len(kept) - len(set(kept)),
        sum(own != sorted(own, key=lambda name: int(name.partition("-")[2])) for own in seen),
        sum(one != expected for one, expected in zip(history, tail, strict=True)),
    )


async def _write(session: aiohttp.ClientSession, url: str, writer: int, count: int) -> list[bool]:
    """Send one after the other; whether each reply was the message's own."""
    found = []
    for number in range(count):
        text = f"What do you think of {mark(writer, number)}"
        body = {"uid": UID, "message_id": f"w{writer}-{number}", "text": text}
        while True:
            async with session.post(f"{url}/v1/chat", json=body) as response:
                content = await response.json()
                if response.status == 200:
                    found.append(text in content["text"])
                    break
                if not content["retryable"]:
                    raise RuntimeError(f"message w{writer}-{number} was refused: {content['detail']}")
            await asyncio.sleep(RETRY_S)
    return found


async def _outbox(session: aiohttp.ClientSession, url: str, count: int) -> list[str]:
    """The message ids of so many replies, in the order of the outbox."""
    found: list[str] = []
    params = {"uid": UID, "last_event_id": "0"}
    async with session.get(f"{url}/v1/events", params=params) as response, aclosing(events(response)) as stream:
        while len(found) < count:
            async with asyncio.timeout(READ_S):
                event = await anext(stream)
            if event.kind == "reply":
                found.append(event.data["message_id"])
    return found
