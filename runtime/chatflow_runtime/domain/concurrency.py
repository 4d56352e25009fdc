"""How many answers of a backend may be under way at once, by how long first tokens take. Pure; `answerers.lane` keeps
one limit for each language model.

The limit follows the gradient of the latency, as in Netflix's concurrency-limits (Gradient2): while first tokens come
about as fast as they do without a queue, it grows; once they take longer by more than a factor, answers are waiting for
each other, and it shrinks by that factor. Waiting for a place is kept short by controlled delay, as described in
"Fail at Scale" (Maurer, ACM Queue 13/8, 2015): a queue that has not been empty for a while is a standing one, in which
nobody gains by waiting long.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum


class Priority(IntEnum):
    """Who goes first when not all can."""

    NEW = 0
    """A conversation that has not begun."""
    UNDER_WAY = 1
    HELD = 2
    """One in a form, or handed over to a person."""


@dataclass(frozen=True, slots=True)
class LimitRules:
    """Bounds of a limit, and how it moves."""

    least: int = 2
    most: int = 1024
    first: int = 64
    """Before anything is known."""
    tolerance: float = 1.5
    """First tokens that take this much longer than without a queue are in order."""
    harmless_s: float = 0.05
    """So are those that take no longer than this times the tolerance: the jitter of a busy machine is no queue."""
    window_s: float = 0.25
    samples: int = 20
    """A window lasts at least so long, and has at least so many first tokens."""
    few: int = 5
    severe: float = 3.0
    """So few are enough where every one of them is in order, or takes this many times longer: then the limit goes the
    whole way to its target."""
    typical: float = 0.3
    """Share of a window's first tokens that are faster than the one it goes by: a queue slows all of them down, long
    questions only their own."""
    smoothing: float = 0.5
    """Share of the way to its target that the limit goes with each window."""
    fall: float = 0.2
    drift: float = 0.01
    """Shares by which the latency without a queue follows a shorter one with each window, and a longer one with each in
    which there was room: the questions may have become longer."""
    busy_windows: int = 60
    """After so many windows without room one is had at half the limit, to see what the latency is without a queue: the
    model may have become slower, and must not be held down for ever."""
    probe: float = 0.7
    """Share by which that latency follows what is seen then."""
    late: float = 0.1
    """So large a share of first tokens that do not come is in order: the questions of some are long."""
    backoff: float = 0.8
    """What is left of the limit after a first token that did not come, or a refusal; at most once a window."""


class Limit:
    """The limit for one backend. Times in seconds on one monotonic clock."""

    def __init__(self, rules: LimitRules) -> None:
        self._rules = rules
        self._limit = float(min(max(rules.first, rules.least), rules.most))
        self._calm_s: float | None = None
        """How long first tokens take without a queue."""
        self._samples: list[float] = []
        self._most_under_way = 0
        self._opened_s: float | None = None
        self._backed_off_s = -math.inf
        self._came = self._late = 0.0
        """First tokens that came and that did not, those of earlier windows counted less and less."""
        self._busy_windows = 0

    @property
    def value(self) -> int:
        """How many answers may be under way."""
        limit = int(self._limit)
        return max(self._rules.least, limit // 2) if self._is_probing else limit

    @property
    def _is_probing(self) -> bool:
        return self._busy_windows >= self._rules.busy_windows

    def began(self, seconds: float, under_way: int, now_s: float) -> None:
        """A first token came `seconds` after it was asked for, while so many answers were under way."""
        self._came += 1
        if self._is_probing and under_way > self.value:
            return
        if self._opened_s is None:
            self._opened_s = now_s
        self._samples.append(seconds)
        self._most_under_way = max(self._most_under_way, under_way)
        if now_s - self._opened_s >= self._rules.window_s and self._is_telling():
            self._closed()

    def _is_telling(self) -> bool:
        rules, count = self._rules, len(self._samples)
        is_calm = count >= rules.few and max(self._samples) <= self._tolerable_s
        return count >= rules.samples or is_calm or self._is_severe()

    def _is_severe(self) -> bool:
        rules = self._rules
        return len(self._samples) >= rules.few and min(self._samples) > rules.severe * self._tolerable_s

    @property
    def _tolerable_s(self) -> float:
        return self._rules.tolerance * max(self._calm_s or 0.0, self._rules.harmless_s)

    def late(self, now_s: float) -> None:
        """A first token did not come in time. Where none comes at all that is no queue, and the breaker's matter."""
        self._late += 1
        if self._came >= 1 and self._late > self._rules.late * (self._came + self._late):
            self._came = self._late = 0.0
            self.refused(now_s)

    def refused(self, now_s: float) -> None:
        """The backend said that it has too much to do."""
        if now_s - self._backed_off_s >= self._rules.window_s:
            self._backed_off_s = now_s
            self._set(self._limit * self._rules.backoff)

    def _closed(self) -> None:
        rules = self._rules
        typical_s = sorted(self._samples)[int(len(self._samples) * rules.typical)]
        if self._is_probing:
            self._follow(typical_s, rules.probe)
            self._busy_windows = 0
        else:
            self._judge(typical_s)
        kept = 0.5 ** (len(self._samples) / rules.samples)
        self._came, self._late = self._came * kept, self._late * kept
        self._samples.clear()
        self._most_under_way, self._opened_s = 0, None

    def _judge(self, typical_s: float) -> None:
        rules, had_room = self._rules, self._most_under_way < self._limit / 2
        if self._calm_s is None or typical_s < self._calm_s:
            self._follow(typical_s, rules.fall)
        elif had_room:
            self._follow(typical_s, rules.drift)
        gradient = min(1.0, max(LEAST_GRADIENT, self._tolerable_s / typical_s)) if typical_s > 0 else 1.0
        if gradient < 1 or not had_room:
            # What was under way caused the latency, however far away the limit was.
            used = min(self._limit, self._most_under_way) if gradient < 1 else self._limit
            target = used * gradient + math.sqrt(used)
            self._set(self._limit + (target - self._limit) * (1.0 if self._is_severe() else rules.smoothing))
        self._busy_windows = 0 if had_room else self._busy_windows + 1

    def _follow(self, typical_s: float, share: float) -> None:
        self._calm_s = typical_s if self._calm_s is None else self._calm_s + (typical_s - self._calm_s) * share

    def _set(self, limit: float) -> None:
        self._limit = min(float(self._rules.most), max(float(self._rules.least), limit))


LEAST_GRADIENT = 0.5
MOST_PATIENCE_S = 1.0


@dataclass(frozen=True, slots=True)
class QueueRules:
    """How long a place may be waited for. All in seconds."""

    patience_s: float = 0.2
    short_patience_s: float = 0.02
    """In a standing queue."""
    standing_s: float = 0.1
    """A queue that has not been empty for so long is a standing one."""
    new_wait: bool = False
    """Whether those who are new wait as well, after the others: they have been accepted already."""

    @classmethod
    def within(cls, deadline_s: float) -> QueueRules:
        """Rules that leave a first token most of its deadline; a long one makes nobody wait for long."""
        patience_s = min(deadline_s / 4, MOST_PATIENCE_S)
        return cls(patience_s, patience_s / 10, patience_s / 2)

    def patience(self, age_s: float) -> float:
        """How long someone waits in a queue that has not been empty for so long."""
        return self.short_patience_s if age_s > self.standing_s else self.patience_s
