"""Rate limits by the generic cell rate algorithm (GCRA, ITU-T I.371): one number a key says how far ahead of its rate
it is. The Lua scripts compute the same; the in-memory twin and the tests use this."""

from __future__ import annotations

import math
from dataclasses import dataclass

GRAIN_MS = 0.001
"""To what the times are kept: less than this is no time."""


@dataclass(frozen=True, slots=True)
class Rate:
    """`burst` at once, and one more every `interval_ms` after that. An interval of 0 sets no limit."""

    interval_ms: float = 0.0
    burst: int = 1

    @property
    def is_limited(self) -> bool:
        """Whether there is a limit at all."""
        return self.interval_ms > 0


def charge(rate: Rate, due_ms: float | None, now_ms: float) -> tuple[float | None, int]:
    """(what to keep for the next time, 0), or (None, ms until it is worth trying again), given what was kept.

    What is kept is the theoretical arrival time: by when all that was let in would have come at the rate.
    """
    following_ms = max(due_ms or 0.0, now_ms) + rate.interval_ms
    early_ms = following_ms - rate.burst * rate.interval_ms - now_ms
    if early_ms > GRAIN_MS:
        return None, math.ceil(early_ms)
    return following_ms, 0
