"""Circuit breakers: whether a backend is asked, by what its last calls were like. Pure; `answerers` and `adapters` keep
one for each backend.

Closed, every call goes out; open, none does, so that a turn is with the next rung at once; half open, a few go out to
see whether the backend has recovered (Nygard, "Release It!", 2007, chapter 5). It opens for a moment, and each time for
longer until it has stayed closed for a while.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """What a breaker lets through."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Verdict(StrEnum):
    """What a call says about its backend."""

    GOOD = "good"
    BAD = "bad"
    """Failed, or slow."""
    NOTHING = "nothing"
    """The caller left, or the request itself was at fault."""


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """When a breaker opens, and for how long. The defaults hold apart a backend of which 5 % of the calls are bad (it
    opens in none of 100,000) and one of which half are (it opens within 50)."""

    bad_share: float = 0.4
    """Of the calls in the window, from which on it opens."""
    calls: int = 30
    """The window: so many last calls, none of them older than `window_s`."""
    window_s: float = 60.0
    minimum_calls: int = 20
    """With fewer in the window it stays closed."""
    in_a_row: int | None = None
    """It also opens when so many calls in a row were bad."""
    open_s: float = 0.5
    """How long it stays open the first time; twice as long each further time, up to `most_open_s`."""
    most_open_s: float = 4.0
    jitter: float = 0.2
    """Share by which that time is shortened by chance, so that gateways do not probe all at once."""
    probes: int = 3
    """Calls of a half-open breaker: all good, and it closes; one bad, and it is open again."""


@dataclass(frozen=True, slots=True)
class Permit:
    """That one call may go out; to be given back with what came of it."""

    period: int
    """The breaker has opened or closed since when this is another one: what came of the call tells nothing any more."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A breaker, for people to read."""

    state: State
    calls: int
    """In the window."""
    bad: int
    """Of them."""
    openings: int
    """Since the process began."""
    opens_for_s: float
    """Until it lets a call through to see; 0 where it does already."""


class Breaker:
    """One backend's breaker. Not safe for threads; `chance` gives numbers from 0 up to 1."""

    def __init__(self, rules: BreakerRules, chance: Callable[[], float]) -> None:
        self._rules = rules
        self._chance = chance
        self._window: deque[tuple[float, bool]] = deque()
        self._bad = 0
        self._in_a_row = 0
        self._period = 0
        self._is_closed = True
        self._until_s = 0.0
        """When it lets probes through, while it is not closed."""
        self._probing = self._probed = 0
        self._streak = 0
        """Openings that followed each other closely."""
        self._closed_s = 0.0
        self.openings = 0

    def state(self, now_s: float) -> State:
        """What it lets through at a time of a clock that never goes back."""
        if self._is_closed:
            return State.CLOSED
        return State.OPEN if now_s < self._until_s else State.HALF_OPEN

    def admit(self, now_s: float) -> Permit | None:
        """Leave for one call, or None. Whoever gets one must `settle` it."""
        if not self._is_closed:
            if now_s < self._until_s or self._probing + self._probed >= self._rules.probes:
                return None
            self._probing += 1
        return Permit(self._period)

    def settle(self, permit: Permit, verdict: Verdict, now_s: float) -> None:
        """What came of a call. A call may be settled twice where it began well and broke off later."""
        if permit.period != self._period:
            return
        if not self._is_closed:
            self._settle_probe(verdict, now_s)
        elif verdict is not Verdict.NOTHING:
            self._note(now_s, is_bad=verdict is Verdict.BAD)
            if verdict is Verdict.BAD and self._is_over():
                self._open(now_s)

    def snapshot(self, now_s: float) -> Snapshot:
        """How it stands."""
        self._forget(now_s)
        left_s = 0.0 if self._is_closed else max(0.0, self._until_s - now_s)
        return Snapshot(self.state(now_s), len(self._window), self._bad, self.openings, left_s)

    def _settle_probe(self, verdict: Verdict, now_s: float) -> None:
        self._probing = max(0, self._probing - 1)
        if verdict is Verdict.BAD:
            self._open(now_s)
        elif verdict is Verdict.GOOD:
            self._probed += 1
            if self._probed >= self._rules.probes:
                self._turn(is_closed=True)
                self._closed_s = now_s

    def _note(self, now_s: float, *, is_bad: bool) -> None:
        self._window.append((now_s, is_bad))
        self._bad += is_bad
        self._in_a_row = self._in_a_row + 1 if is_bad else 0
        self._forget(now_s)

    def _forget(self, now_s: float) -> None:
        while self._window and (
            len(self._window) > self._rules.calls or self._window[0][0] < now_s - self._rules.window_s
        ):
            self._bad -= self._window.popleft()[1]

    def _is_over(self) -> bool:
        if self._rules.in_a_row is not None and self._in_a_row >= self._rules.in_a_row:
            return True
        calls = len(self._window)
        return calls >= self._rules.minimum_calls and self._bad >= self._rules.bad_share * calls

    def _open(self, now_s: float) -> None:
        if self._is_closed and now_s - self._closed_s > self._rules.window_s:
            self._streak = 0
        open_s = min(self._rules.most_open_s, self._rules.open_s * 2.0 ** min(self._streak, 32))
        self._streak += 1
        self.openings += 1
        self._until_s = now_s + open_s * (1 - self._rules.jitter * self._chance())
        self._turn(is_closed=False)

    def _turn(self, *, is_closed: bool) -> None:
        self._is_closed = is_closed
        self._period += 1
        self._window.clear()
        self._bad = self._in_a_row = self._probing = self._probed = 0
