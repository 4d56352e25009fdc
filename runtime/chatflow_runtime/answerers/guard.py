"""The breakers of a process on its clock: whoever asks a backend gets leave first, and says what came of it.

One guard a backend: the language models (`models`) and the intent server (`adapters.remote_classification`).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import structlog
from chatflow_api.runtime_config import BreakerConfig

from chatflow_runtime.domain.breaker import Breaker, BreakerRules, Permit, Snapshot, Verdict
from chatflow_runtime.metrics import Metrics

log = structlog.get_logger()


@dataclass(slots=True)
class Attempt:
    """One call to a backend. Leaving the context without a word says nothing of the backend."""

    guard: Guard
    permit: Permit
    _is_settled: bool = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._is_settled:
            self._settle(Verdict.NOTHING)

    def began(self, seconds: float) -> None:
        """An answer began so long after it was asked for."""
        self._settle(Verdict.BAD if seconds > self.guard.slow_s else Verdict.GOOD)

    def failed(self) -> None:
        """There was none, or it broke off."""
        self._settle(Verdict.BAD)

    def _settle(self, verdict: Verdict) -> None:
        self._is_settled = True
        self.guard.settle(self.permit, verdict)


class Guard:
    """One backend's breaker."""

    def __init__(self, backend: str, rules: BreakerRules, slow_s: float, metrics: Metrics, guards: Guards) -> None:
        self.slow_s = slow_s
        self._backend = backend
        self._breaker = Breaker(rules, guards.chance)
        self._clock_s = guards.clock_s
        self._metrics = metrics
        metrics.watch_breaker(backend, self.snapshot)

    def admit(self) -> Attempt | None:
        """Leave for one call; None where the backend is to be left alone just now."""
        permit = self._breaker.admit(self._clock_s())
        if permit is None:
            self._metrics.breaker_refused(self._backend)
            return None
        return Attempt(self, permit)

    def settle(self, permit: Permit, verdict: Verdict) -> None:
        """What came of a call."""
        now_s = self._clock_s()
        before, openings = self._breaker.state(now_s), self._breaker.openings
        self._breaker.settle(permit, verdict, now_s)
        after = self._breaker.state(now_s)
        if self._breaker.openings > openings:
            self._metrics.breaker_opened(self._backend)
            log.warning("breaker_opened", backend=self._backend, for_s=round(self.snapshot().opens_for_s, 2))
        elif after is not before:
            log.info("breaker_closed", backend=self._backend)

    def snapshot(self) -> Snapshot:
        """How it stands."""
        return self._breaker.snapshot(self._clock_s())


@dataclass
class Guards:
    """The guards of a process, by backend."""

    metrics: Metrics
    rules: BreakerRules = field(default_factory=BreakerRules)
    slow_s: float | None = None
    """From where on the first token of a language model counts as a failure, though its answer is used."""
    clock_s: Callable[[], float] = time.monotonic
    chance: Callable[[], float] = random.random
    _guards: dict[str, Guard] = field(default_factory=dict)

    def of(self, backend: str, slow_s: float | None = None) -> Guard:
        """The guard of a backend, made when it is first asked for. `slow_s`: from where on an answer that began counts
        as bad; never, where None."""
        if backend not in self._guards:
            slow = float("inf") if slow_s is None else slow_s
            self._guards[backend] = Guard(backend, self.rules, slow, self.metrics, self)
        return self._guards[backend]

    def snapshots(self) -> Mapping[str, Snapshot]:
        """How all of them stand, by backend."""
        return {backend: guard.snapshot() for backend, guard in self._guards.items()}

    @classmethod
    def by(cls, config: BreakerConfig, metrics: Metrics) -> Self:
        """By a flow's configuration."""
        rules = BreakerRules(
            bad_share=config.failure_rate,
            calls=config.calls,
            window_s=config.window_s,
            minimum_calls=config.minimum_calls,
            in_a_row=config.consecutive_failures,
            open_s=config.open_s,
            most_open_s=config.most_open_s,
        )
        return cls(metrics, rules, config.slow_after_s)
