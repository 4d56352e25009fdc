"""Load profiles: requests a second over time, built in or from a file, and the arrivals that a seed makes of them."""

from __future__ import annotations

import csv
import math
import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

DAY_S = 86_400.0
_MOST_POINTS = 100_000
_CONSTANT_S = 10.0
_SPREAD = 0.5
"""Of the logarithm of an answer's length."""
_HOURS = (
    (0.0, 0.14),
    (3.0, 0.10),
    (6.0, 0.10),
    (8.0, 0.16),
    (8.75, 0.22),
    # People come to their desks: two thirds of the peak within half an hour.
    (9.25, 0.88),
    (10.5, 1.00),
    (11.75, 0.90),
    (12.75, 0.66),
    (14.0, 0.92),
    (15.5, 0.97),
    (17.5, 0.80),
    (18.5, 0.55),
    (20.5, 0.62),
    (22.0, 0.40),
    (24.0, 0.14),
)
"""A working day of customer service, as shares of the peak by the hour."""


class ProfileInvalid(Exception):
    """A profile that cannot be used; the message names the line and what is wrong."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Requests a second at points in time, straight between them."""

    times_s: tuple[float, ...]
    rates: tuple[float, ...]

    @property
    def length_s(self) -> float:
        """How long it lasts."""
        return self.times_s[-1]

    @property
    def requests(self) -> float:
        """How many requests it stands for."""
        parts = zip(self.times_s, self.times_s[1:], self.rates, self.rates[1:], strict=False)
        return sum((end_s - begin_s) * (first + last) / 2 for begin_s, end_s, first, last in parts)

    def rate(self, time_s: float) -> float:
        """Requests a second at a time."""
        at = min(max(bisect_right(self.times_s, time_s), 1), len(self.times_s) - 1)
        begin_s, end_s = self.times_s[at - 1], self.times_s[at]
        share = min(max((time_s - begin_s) / (end_s - begin_s), 0.0), 1.0)
        return self.rates[at - 1] + share * (self.rates[at] - self.rates[at - 1])


def day(peak: float, seed: int) -> Profile:
    """A working day whose peak is ten times its trough, with noise that lasts for minutes."""
    draw = random.Random(seed)  # noqa: S311  A seeded simulation.
    shape = Profile(tuple(hour * 3600 for hour, _ in _HOURS), tuple(share for _, share in _HOURS))
    times_s, rates, noise = [], [], 0.0
    for minute in range(24 * 60 + 1):
        noise = 0.8 * noise + draw.gauss(0.0, 0.02)
        times_s.append(minute * 60.0)
        rates.append(min(max(shape.rate(minute * 60.0) * (1 + noise), 0.1), 1.0) * peak)
    return Profile(tuple(times_s), tuple(rates))


def read_csv(text: str) -> Profile:
    """A profile from CSV with the columns time_s and requests_per_s; ProfileInvalid says which line is wrong."""
    rows = csv.DictReader(text.splitlines())
    missing = {"time_s", "requests_per_s"} - set(rows.fieldnames or ())
    if missing:
        raise ProfileInvalid(f"line 1: no column {' and '.join(sorted(missing))}; write time_s,requests_per_s")
    times_s: list[float] = []
    rates: list[float] = []
    for row in rows:
        time_s, rate = (_number(row[name], name, rows.line_num) for name in ("time_s", "requests_per_s"))
        if times_s and time_s <= times_s[-1]:
            raise ProfileInvalid(f"line {rows.line_num}: time_s {time_s:g} does not follow {times_s[-1]:g}; sort them")
        times_s.append(time_s)
        rates.append(rate)
    if not 2 <= len(times_s) <= _MOST_POINTS:
        raise ProfileInvalid(f"{len(times_s)} lines of figures; give 2 to {_MOST_POINTS:,}")
    return Profile(tuple(time_s - times_s[0] for time_s in times_s), tuple(rates))


def _number(text: str | None, name: str, line: int) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ProfileInvalid(f"line {line}: {name} is {text!r}; give a number from 0")
    return value


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Requests of a profile, drawn once so that every rule meets the same ones."""

    length_s: float
    times_s: Sequence[float]
    tokens: Sequence[float]
    """How long each answer is."""
    lots: Sequence[float]
    """From 0 to 1: which of the servers a Service picks."""


def arrivals(profile: Profile, tokens: float, seed: int) -> Arrivals:
    """Poisson arrivals by the profile; answers have `tokens` on average, one in fifty 2.5 times that (log-normal)."""
    draw = random.Random(seed)  # noqa: S311  A seeded simulation.
    times_s = list(_times(draw, profile))
    centre = math.log(tokens) - _SPREAD**2 / 2
    normal = NormalDist(centre, _SPREAD)
    lengths = [math.exp(normal.inv_cdf((number + 0.5) / 1000)) for number in range(1000)]
    lots = [draw.random() for _ in times_s]
    return Arrivals(profile.length_s, times_s, draw.choices(lengths, k=len(times_s)), lots)


def _times(draw: random.Random, profile: Profile) -> Iterator[float]:
    """Arrival times, with the rate taken as constant for some seconds."""
    begin_s = 0.0
    while begin_s < profile.length_s:
        end_s = min(begin_s + _CONSTANT_S, profile.length_s)
        rate = profile.rate((begin_s + end_s) / 2)
        time_s = begin_s
        while rate > 0:
            time_s -= math.log(1.0 - draw.random()) / rate
            if time_s >= end_s:
                break
            yield time_s
        begin_s = end_s
