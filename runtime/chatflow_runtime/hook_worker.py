"""Tells webhooks what they are to be told: what concerns one conversation in its order, each until it is taken.

Runs beside `worker` on the partitions that it owns. What was told leaves its stream afterwards, so whoever has the
partition next may tell it once more, under the same id. A webhook that fails holds up nobody but itself, and of its
conversations the one whose turn it is waits longer each time.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import structlog

from chatflow_runtime.desks import Desk, Desks
from chatflow_runtime.domain.deliveries import Delivery, HandoffRequested, Hook
from chatflow_runtime.errors import DeliveryFailed, LeaseLost, StateError, WebhookGone
from chatflow_runtime.metrics import Delivered, Metrics
from chatflow_runtime.ownership import Ownership
from chatflow_runtime.ports import Clock, HookReader, Lease, Pending, Webhook

_log = structlog.get_logger(__name__)

AT_ONCE = 16
"""Deliveries under way to one webhook."""
PAGE = 100
"""Entries that are looked at in one call."""
FIRST_PAUSE_S, LAST_PAUSE_S = 1.0, 600.0
"""Between attempts: each is twice as long as the one before, less a random part of up to a half."""
WOKEN_S = 30.0
"""A webhook that takes something again is told at once of what waits for its next attempt, so often at most: some of
that may fail for its own sake."""
STATE_PAUSE_S = 5.0
"""The longest pause when it is the state server that fails."""
GIVE_UP_MS = 24 * 3_600_000
"""What a webhook has not taken by this age is given up."""
DRAIN_S = 5.0
"""Time for deliveries under way when the worker is told to stop."""

Later = Callable[[float, Callable[[], None]], object]
"""Does something after so many seconds: an event loop's call_later, unless a test hands in its own."""


@dataclass
class _Desk(Desk):
    """What is to be told in one partition."""

    lanes: dict[tuple[Hook, str], _Lane] = field(default_factory=dict)
    after: str | None = None
    """The last entry that was looked at."""


@dataclass(slots=True, eq=False)
class _Lane:
    """What one webhook is to be told of one user, first come first. Only the ids: there may be many, and they wait
    long."""

    desk: _Desk
    hook: Hook
    uid: str
    waiting: deque[Pending] = field(default_factory=deque)
    failures: int = 0


class HookWorker:
    """Delivers to `webhooks`. `flow_key` makes the ids of deliveries those of this flow alone. `unreached` lets the bot
    answer a conversation again for which nobody could be asked; it may be called twice for one."""

    def __init__(
        self,
        reader: HookReader,
        ownership: Ownership,
        webhooks: Mapping[Hook, Webhook],
        metrics: Metrics,
        clock: Clock,
        flow_key: str,
        unreached: Callable[[Delivery], Awaitable[None]],
        *,
        later: Later | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._reader = reader
        self._webhooks = webhooks
        self._metrics = metrics
        self._clock = clock
        self._flow_key = flow_key
        self._unreached = unreached
        self._later = later
        self._jitter = jitter
        self._desks = Desks("hooks", ownership, _Desk)
        self._ready = {hook: asyncio.Queue[_Lane | None]() for hook in webhooks}
        self._failing: set[Hook] = set()
        self._resting: dict[Hook, set[_Lane]] = {hook: set() for hook in webhooks}
        """Those that wait for their next attempt."""
        self._woken_s = dict.fromkeys(webhooks, -math.inf)
        for hook in webhooks:
            metrics.watch_hook(hook, lambda hook=hook: float(self._waiting(hook)))  # type: ignore[misc]  # Bound now.

    def wake(self, partition: int | None = None) -> None:
        """Look into a stream soon, or into all."""
        self._desks.wake(partition)

    async def run(self) -> None:
        """Work until cancelled; then wait a little for the deliveries under way, and begin no others."""
        runners = [
            asyncio.create_task(self._serve(hook, queue)) for hook, queue in self._ready.items() for _ in range(AT_ONCE)
        ]
        try:
            # Without webhooks there is nothing to hear of: what an earlier manifest left is looked at once.
            await self._desks.watch(self._is_emptied, rescans=bool(self._webhooks))
        finally:
            await self._drain(runners)

    async def _drain(self, runners: list[asyncio.Task[None]]) -> None:
        for queue in self._ready.values():
            for _ in range(AT_ONCE):
                queue.put_nowait(None)
        if runners:
            await asyncio.wait(runners, timeout=DRAIN_S)
        for runner in runners:
            runner.cancel()

    async def _is_emptied(self, desk: _Desk) -> bool:
        """See what there is to tell in one partition."""
        while page := await self._reader.waiting(desk.lease, desk.after, PAGE):
            for one in page:
                if one.hook in self._ready:
                    self._put(desk, one)
                else:
                    await self._reader.sent(desk.lease, one, "the flow has no such webhook any longer")
                    self._metrics.delivery(one.hook, Delivered.DEAD)
                desk.after = one.entry
            if len(page) < PAGE:
                break
        return True

    def _put(self, desk: _Desk, one: Pending) -> None:
        lane = desk.lanes.get((one.hook, one.uid))
        if lane is not None:
            lane.waiting.append(one)
            return
        lane = desk.lanes[one.hook, one.uid] = _Lane(desk, one.hook, one.uid, deque([one]))
        self._ready[one.hook].put_nowait(lane)

    async def _serve(self, hook: Hook, queue: asyncio.Queue[_Lane | None]) -> None:
        """Deliver what is first in one lane after the other."""
        webhook = self._webhooks[hook]
        while (lane := await queue.get()) is not None:
            if lane.desk.is_lost:
                continue
            try:
                await self._deliver(lane, webhook)
            except LeaseLost:
                self._desks.lose(lane.desk)
            except Exception as error:  # noqa: BLE001  The edge: whatever it is, it must not hold up the others.
                self._postpone(lane, error)
            else:
                self._advance(lane)

    async def _deliver(self, lane: _Lane, webhook: Webhook) -> None:
        """Tell a webhook what is first in a lane, or give it up. Raises whatever makes it worth another attempt."""
        lease, one = lane.desk.lease, lane.waiting[0]
        delivery = await self._reader.read(lease, one)
        if delivery is None:
            self._metrics.delivery(lane.hook, Delivered.DROPPED)
            _log.error("webhook.dropped", hook=lane.hook, entry=one.entry, partition=lease.partition)
            return
        why = await self._told(webhook, one, lease, delivery)
        if why is not None and isinstance(delivery.told, HandoffRequested):
            await self._unreached(delivery)
        await self._reader.sent(lease, one, why)
        self._metrics.delivery(lane.hook, Delivered.DELIVERED if why is None else Delivered.DEAD)
        if why is not None:
            _log.error("webhook.given_up", hook=lane.hook, entry=one.entry, partition=lease.partition, reason=why)
        elif lane.hook in self._failing:
            self._failing.discard(lane.hook)
            _log.info("webhook.recovered", hook=lane.hook)
            self._wake_resting(lane.hook)

    async def _told(self, webhook: Webhook, one: Pending, lease: Lease, delivery: Delivery) -> str | None:
        """None once it has been told; why not, if it never will be."""
        try:
            await webhook.post(f"{self._flow_key}.{lease.partition}.{one.entry}", delivery)
        except DeliveryFailed as error:
            self._metrics.delivery(one.hook, Delivered.FAILED)
            age_ms = self._clock.now_ms() - int(one.entry.partition("-")[0])
            if isinstance(error, WebhookGone) or age_ms > GIVE_UP_MS:
                return str(error)
            raise
        return None

    def _postpone(self, lane: _Lane, error: Exception) -> None:
        """Try again later. Others go on."""
        lane.failures += 1
        longest_s = STATE_PAUSE_S if isinstance(error, StateError) else LAST_PAUSE_S
        pause_s = min(longest_s, FIRST_PAUSE_S * 2.0 ** min(lane.failures - 1, 20)) * (1 - self._jitter() / 2)
        if lane.hook not in self._failing:
            self._failing.add(lane.hook)
            _log.warning("webhook.failing", hook=lane.hook, error=type(error).__name__, reason=str(error))
        self._resting[lane.hook].add(lane)
        later = self._later or asyncio.get_running_loop().call_later
        later(pause_s, lambda: self._rested(lane))

    def _rested(self, lane: _Lane) -> None:
        """Its pause is over, unless it was cut short."""
        if lane in self._resting[lane.hook]:
            self._resting[lane.hook].remove(lane)
            self._ready[lane.hook].put_nowait(lane)

    def _wake_resting(self, hook: Hook) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - self._woken_s[hook] >= WOKEN_S:
            self._woken_s[hook] = now_s
            for lane in list(self._resting[hook]):
                self._rested(lane)

    def _advance(self, lane: _Lane) -> None:
        lane.failures = 0
        lane.waiting.popleft()
        if lane.waiting:
            self._ready[lane.hook].put_nowait(lane)
        else:
            del lane.desk.lanes[lane.hook, lane.uid]

    def _waiting(self, hook: Hook) -> int:
        lanes = (lane for desk in self._desks for lane in desk.lanes.values())
        return sum(len(lane.waiting) for lane in lanes if lane.hook is hook)
