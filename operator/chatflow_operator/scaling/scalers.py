"""Who decides on the number of servers in the simulator: ChatFlow's rule, CPU, or somebody who knows the future."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

from chatflow_operator.scaling import rule
from chatflow_operator.scaling.horizontal import SYNC_S, HorizontalAutoscaler, wanted_by_average, wanted_by_total


@dataclass(frozen=True, slots=True)
class Scrape:
    """What Prometheus and metrics-server have read, over all servers that are ready."""

    running: int = 0
    waiting: int = 0
    cache: float = 0.0
    held: int = 0
    cpu: float = 0.0
    """Average utilisation."""


@dataclass(frozen=True, slots=True)
class Replicas:
    """How many servers there are."""

    ready: int
    ordered: int
    """The ready ones and those that start."""


class Scaler(Protocol):
    """Asked every `every_s` seconds how many servers there should be."""

    every_s: float

    def decide(self, now_s: float, replicas: Replicas, scrape: Scrape) -> int:
        """The number of servers from now on."""
        ...


class RuleScaler:
    """The ScaledObject of `resources.modelscaler`: KEDA between none and one, its HorizontalPodAutoscaler above."""

    def __init__(self, followed: rule.Rule, least: int, most: int, cooldown_s: float) -> None:
        self.every_s = rule.WAKING_POLLING_S if least == 0 else SYNC_S
        self._rule = followed
        self._least = least
        self._cooldown_s = cooldown_s
        self._active_s = 0.0
        self._synced_s = -SYNC_S
        self._autoscaler = HorizontalAutoscaler(rule.BEHAVIOR, max(least, 1), most)

    def decide(self, now_s: float, replicas: Replicas, scrape: Scrape) -> int:
        """Its number; KEDA hands values on in thousandths."""
        value = self._rule.replicas(scrape.running, scrape.waiting, scrape.cache, scrape.held)
        value = math.trunc(value * 1000) / 1000
        if value > 0:
            self._active_s = now_s
        if replicas.ordered == 0:
            return 1 if value > 0 else 0
        if self._least == 0 and now_s - self._active_s > self._cooldown_s:
            return 0
        if now_s - self._synced_s < SYNC_S:
            return replicas.ordered
        self._synced_s = now_s
        wanted = wanted_by_total(value, rule.TARGET, replicas.ordered)
        return self._autoscaler.step(now_s, replicas.ordered, wanted)


class CpuScaler:
    """A HorizontalPodAutoscaler on the pods' CPU, with the rule's behavior."""

    every_s = SYNC_S

    def __init__(self, percent: float, least: int, most: int) -> None:
        self._target = percent / 100
        self._autoscaler = HorizontalAutoscaler(rule.BEHAVIOR, max(least, 1), most)

    def decide(self, now_s: float, replicas: Replicas, scrape: Scrape) -> int:
        """Its number."""
        wanted = wanted_by_average(scrape.cpu, self._target, replicas.ready, replicas.ordered)
        return self._autoscaler.step(now_s, replicas.ordered, wanted)


class ForesightScaler:
    """The oracle: orders each server just so early that it is ready when the load, which it knows, calls for it.

    `loads` are the requests in flight every `step_s` seconds. It follows their mean over `_SMOOTHED_S`, since a server
    for every ripple would cost more than it saves: of 0 to 20 minutes this gave the least. With `least` 0 it lets the
    last one go where nobody asks for as long.
    """

    every_s = 5.0
    _SMOOTHED_S = 600.0

    def __init__(
        self, loads: Sequence[float], step_s: float, per_server: float, start_s: float, least: int, most: int
    ) -> None:
        half, sums = int(self._SMOOTHED_S / step_s / 2), [0.0, *accumulate(loads)]
        bounds = [(max(0, at - half), min(len(loads), at + half + 1)) for at in range(len(loads))]
        means = [(sums[end] - sums[begin]) / (end - begin) for begin, end in bounds]
        needed = [min(max(math.ceil(mean / per_server), least), most) for mean in means]
        ahead = math.ceil(start_s / step_s) + 1
        self._ordered = [max(needed[at : at + ahead + 1]) for at in range(len(needed))]
        self._step_s = step_s

    def decide(self, now_s: float, replicas: Replicas, scrape: Scrape) -> int:  # noqa: ARG002  It looks ahead instead.
        """Its number."""
        return self._ordered[min(int(now_s / self._step_s), len(self._ordered) - 1)]
