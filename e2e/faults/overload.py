"""Three times the load that the language model can bear: users come at a rate of their own, whatever becomes of those
before them. Each asks a few questions that only the model can answer; one who is turned away at the first goes away.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp

from e2e.faults import plant
from e2e.faults.ledger import Audit, Kept, Sent, audit, mark
from e2e.faults.load import outbox
from e2e.faults.slots import slotted_model

SLOTS = 8
MESSAGES = 5
"""Of one user."""
THINK_S = 0.5
"""Between a reply and the user's next message, on average."""
CALM_LOAD, OVERLOAD = 0.4, 3.0
"""Of the model's capacity, if every user asked all questions."""
BEFORE_S, AFTER_S = 15.0, 15.0
RAMP_S = 3.0
"""After the load has grown; within it the limits find the model's capacity."""
PATIENCE_S = 30.0
READERS = 16


@dataclass(frozen=True)
class Heard:
    """What became of one message."""

    at_s: float
    """When it was sent, since the beginning."""
    took_s: float
    is_new: bool
    """Whether it was the user's first."""
    outcome: str
    """The origin of its reply, or the code of the problem."""


@dataclass(frozen=True)
class Overload:
    """What came of it."""

    audit: Audit
    goodput: float
    """Model answers a second beside the model's capacity, once the limits had settled."""
    calm_p99_s: float
    accepted_p99_s: float
    """Of the model's answers, during the same time."""
    established_shed: int
    new_shed: int
    busy_replies: int
    """Conversations under way that got the static reply instead."""
    failures: int
    recovered_s: float
    """From the end of the load until no message was turned away any more, or took longer than three times the calm
    p99."""

    def misses(self) -> list[str]:
        """The bars that are not held, in words."""
        found = {
            f"goodput is {self.goodput:.2f} of the capacity, below 0.9": self.goodput < 0.9,
            f"p99 is {self.accepted_p99_s / self.calm_p99_s:.1f} times the calm one": self.accepted_p99_s
            > 3 * self.calm_p99_s,
            f"{self.established_shed} messages of conversations under way were turned away": self.established_shed > 0,
            f"{self.failures} requests failed": self.failures > 0,
            f"it took {self.recovered_s:.1f} s to recover": self.recovered_s > 5,
        }
        return [text for text, is_missed in found.items() if is_missed]


@dataclass
class Crowd:
    """The users and what they heard."""

    urls: Sequence[str]
    session: aiohttp.ClientSession
    chance: random.Random
    began_s: float
    heard: list[Heard]
    sent: dict[str, list[Sent]]

    async def come(self, rate: float, seconds: float, group: asyncio.TaskGroup) -> None:
        """So many users a second for a while, at times of their own."""
        end_s = time.monotonic() + seconds
        while (now_s := time.monotonic()) < end_s:
            group.create_task(self._talk(len(self.sent)))
            self.sent[f"u{len(self.sent)}"] = []
            await asyncio.sleep(min(self.chance.expovariate(rate), end_s - now_s))

    async def _talk(self, user: int) -> None:
        uid = f"u{user}"
        for number in range(MESSAGES):
            one = Sent(f"m{number}", f"What do you think of {mark(user, number)}")
            outcome = await self._ask(uid, one, self.urls[(user + number) % len(self.urls)])
            if not one.is_accepted:
                if number == 0 and outcome == "shed":
                    return
                continue
            self.sent[uid].append(one)
            await asyncio.sleep(self.chance.expovariate(1 / THINK_S))

    async def _ask(self, uid: str, one: Sent, url: str) -> str:
        began_s = time.monotonic()
        body = {"uid": uid, "message_id": one.message_id, "text": one.text}
        try:
            async with asyncio.timeout(PATIENCE_S), self.session.post(f"{url}/v1/chat", json=body) as response:
                content = await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError) as error:
            outcome = type(error).__name__
        else:
            outcome = content["origin"] if response.status == 200 else content["code"]
            if response.status == 200:
                one.is_accepted = True
                one.heard.append(content["text"])
        took_s = time.monotonic() - began_s
        self.heard.append(Heard(began_s - self.began_s, took_s, one.message_id == "m0", outcome))
        return outcome


async def run(seconds: float, seed: int) -> Overload:
    """The load for so long, between two calm times."""
    async with (
        slotted_model(SLOTS) as model,
        plant.running(plant.Layout(llm_url=model.base_url)) as parts,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        chance = random.Random(seed)  # noqa: S311  The same load again, no secret.
        crowd = Crowd(parts.urls, session, chance, time.monotonic(), [], {})
        rate = model.capacity / MESSAGES
        async with asyncio.TaskGroup() as group:
            await crowd.come(CALM_LOAD * rate, BEFORE_S, group)
            grown_s = time.monotonic() - crowd.began_s
            await crowd.come(OVERLOAD * rate, RAMP_S, group)
            settled_s, answered = time.monotonic() - crowd.began_s, model.answered
            await crowd.come(OVERLOAD * rate, seconds - RAMP_S, group)
            over_s, answered = time.monotonic() - crowd.began_s, model.answered - answered
            await crowd.come(CALM_LOAD * rate, AFTER_S, group)
        users = [uid for uid, sent in crowd.sent.items() if sent]
        slots = asyncio.Semaphore(READERS)

        async def kept(uid: str) -> list[Kept]:
            async with slots:
                return await outbox(session, parts.urls[-1], uid, crowd.sent[uid][-1].message_id)

        found = dict(zip(users, await asyncio.gather(*map(kept, users)), strict=True))
    goodput = answered / (over_s - settled_s) / model.capacity
    counts = audit({uid: crowd.sent[uid] for uid in users}, found)
    return _judged(crowd.heard, counts, goodput, grown_s, settled_s, over_s)


def _judged(
    heard: Sequence[Heard], counts: Audit, goodput: float, grown_s: float, settled_s: float, over_s: float
) -> Overload:
    calm = [one.took_s for one in heard if one.at_s < grown_s and one.outcome == "llm"]
    during = [one for one in heard if settled_s <= one.at_s < over_s]
    shed = [one for one in heard if one.outcome == "shed"]
    calm_p99_s = _p99(calm)
    late = [
        one.at_s - over_s
        for one in heard
        if one.at_s >= over_s and (one.outcome != "llm" or one.took_s > 3 * calm_p99_s)
    ]
    return Overload(
        counts,
        goodput,
        calm_p99_s,
        _p99([one.took_s for one in during if one.outcome == "llm"]),
        sum(not one.is_new for one in shed),
        sum(one.is_new for one in shed),
        sum(one.outcome == "static" for one in heard),
        sum(one.outcome not in ("llm", "static", "shed") for one in heard),
        max(late, default=0.0),
    )


def _p99(seconds: Sequence[float]) -> float:
    return statistics.quantiles(seconds, n=100, method="inclusive")[98]
