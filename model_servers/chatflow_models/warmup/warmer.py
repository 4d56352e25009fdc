"""Warms one server, again after each of its restarts, watches it, and says whether it may take traffic."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import aiohttp
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from chatflow_models.warmup.server_under_watch import Hold, Unanswered, check_health, first_token_s, started_at
from chatflow_models.warmup.settings import Settings, SettingsInvalid
from chatflow_models.warmup.warmth import Warmth

log = structlog.get_logger()

PAUSE_S = 0.25
"""Before the server is reached for again, or after an answer that could not be used."""


class Metrics:
    """What Prometheus is told."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.ready = Gauge("chatflow_warmup_ready", "1 while the server may take traffic.", registry=registry)
        self.seconds = Gauge(
            "chatflow_warmup_seconds", "From the server's first sign of life to ready, last time.", registry=registry
        )
        self.first_token = Gauge(
            "chatflow_warmup_first_token_seconds", "Time to first token of the last prompt.", registry=registry
        )
        self.best = Gauge("chatflow_warmup_best_first_token_seconds", "The best one so far.", registry=registry)
        self.prompts = Counter("chatflow_warmup_prompts", "Prompts by outcome.", ["outcome"], registry=registry)
        self.starts = Counter(
            "chatflow_warmup_server_starts", "Processes of the server that have answered.", registry=registry
        )
        self.late = Counter(
            "chatflow_warmup_deadlines_missed", "Servers that took traffic without being warm.", registry=registry
        )


@dataclass(slots=True)
class State:
    """What is known now."""

    reason: str = "the server has not been reached yet"
    """Why it is not ready; empty when it is."""
    hold: Hold | None = None

    @property
    def is_ready(self) -> bool:
        """Whether the process that was warmed is still there."""
        return not self.reason and self.hold is not None and self.hold.is_held


@dataclass(slots=True)
class Process:
    """One process of the server, as far as it can be told from others."""

    started: bytes | None
    """When it began, where the server tells."""
    seen_s: float = field(default_factory=time.monotonic)
    answered_s: float | None = None
    """When the first prompt was answered."""
    is_warm: bool = False
    """Warm, or late."""


class Warmer:
    """Runs beside the server for its whole life."""

    def __init__(
        self,
        settings: Settings,
        session: aiohttp.ClientSession,
        metrics: Metrics,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.state = State()
        self._settings = settings
        self._session = session
        self._metrics = metrics
        self._pause = pause
        self._warmth = Warmth(settings.goal)
        self._prompts = settings.prompts()
        self._process: Process | None = None
        metrics.ready.set_function(lambda: float(self.state.is_ready))

    async def run(self) -> None:
        """Warm each process of the server, until cancelled."""
        while True:
            try:
                hold = await Hold.take(self._settings)
            except Unanswered as error:
                self.state.reason = str(error)
            else:
                await self._attend(hold)
            await self._pause(PAUSE_S)

    async def _attend(self, hold: Hold) -> None:
        """Warm the process that is held, then watch it, until it is lost."""
        started = await started_at(self._session, self._settings)
        process = self._process
        if process is None or started is None or started != process.started:
            process = self._process = self._another(started)
        self.state.hold = hold
        try:
            if process.is_warm or await self._is_warmed(process, hold):
                self.state.reason = ""
                await self._watch(process, hold)
            log.warning("connection_is_lost")
        finally:
            self.state.reason = "the server's process has ended"
            hold.let_go()

    def _another(self, started: bytes | None) -> Process:
        """A process that was not seen before. Times that were measured with other prompts say nothing about it."""
        prompts = self._latest_prompts()
        if prompts != self._prompts:
            self._prompts, self._warmth = prompts, Warmth(self._settings.goal)
        self._warmth.restarted()
        return Process(started)

    async def _is_warmed(self, process: Process, hold: Hold) -> bool:
        """Prompt after prompt until the server is warm, or the deadline is over and it answers at all; False when the
        process ended before."""
        prompts = itertools.cycle(self._prompts)
        self.state.reason = "no prompt is answered yet"
        while hold.is_held:
            try:
                took_s = await first_token_s(self._session, self._settings, next(prompts))
            except Unanswered as error:
                self._metrics.prompts.labels("failed").inc()
                self.state.reason = f"a prompt was not answered: {error}"
                await self._pause(PAUSE_S)
            else:
                process.is_warm = self._is_enough(process, took_s)
                if process.is_warm:
                    return True
                if took_s is None:
                    await self._pause(PAUSE_S)
            await hold.renew(self._settings)
        return False

    def _is_enough(self, process: Process, took_s: float | None) -> bool:
        """Note an answer, the time to its first token if it had one; whether the server may take traffic now."""
        warmth, now_s = self._warmth, time.monotonic()
        if process.answered_s is None:
            process.answered_s = now_s
            self._metrics.starts.inc()
        self._metrics.prompts.labels("empty" if took_s is None else "answered").inc()
        if took_s is None:
            self.state.reason = "a prompt got an answer without a single token"
        else:
            warmth.note(took_s)
            self._metrics.first_token.set(took_s)
            self._metrics.best.set(warmth.best_s or took_s)
            self.state.reason = f"the last first token took {took_s:.3f} s, the best {warmth.best_s:.3f} s"
        if not warmth.is_warm:
            if now_s - process.answered_s <= self._settings.deadline_s:
                return False
            self._metrics.late.inc()
            log.warning("deadline_missed", first_token_s=took_s, best_s=warmth.best_s)
        seconds = now_s - process.seen_s
        self._metrics.seconds.set(seconds)
        log.info("server_is_ready", seconds=round(seconds, 2), prompts=len(warmth.first_tokens_s))
        return True

    async def _watch(self, process: Process, hold: Hold) -> None:
        """Look at the server's health until its process ends. A silent one takes no traffic until it answers again; it
        is as warm as before then."""
        patience, failures = self._settings.patience, 0
        if process.started is None:
            # A server that was still loading may have had no metrics yet.
            started = await started_at(self._session, self._settings)
            process.started = started if hold.is_held else None
        while not await hold.is_lost_within(patience.period_s):
            try:
                await check_health(self._session, self._settings)
            except Unanswered as error:
                failures += 1
                if failures == patience.failures:
                    log.warning("server_is_silent", reason=str(error))
                if failures >= patience.failures:
                    self.state.reason = f"the server is silent: {error}"
                continue
            if self.state.reason:
                log.info("server_answers_again")
            failures, self.state.reason = 0, ""
            await hold.renew(self._settings)

    def _latest_prompts(self) -> tuple[list[dict[str, str]], ...]:
        """A flow's prompt may have changed since the last start; an unreadable file leaves the old ones."""
        try:
            return self._settings.prompts()
        except SettingsInvalid as error:
            log.warning("prompts_unreadable", reason=str(error))
            return self._prompts
