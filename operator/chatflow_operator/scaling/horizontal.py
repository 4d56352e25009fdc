"""What a HorizontalPodAutoscaler (autoscaling/v2) does with a metric, as numbers and as the manifest that asks for it.

`resources` writes `Behavior.manifest` into objects, `scalers` lets `HorizontalAutoscaler` act on the same numbers.
Source: Kubernetes 1.36, `pkg/controller/podautoscaler/{horizontal,replica_calculator}.go`.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Any

SYNC_S = 15.0
"""How often it looks (`--horizontal-pod-autoscaler-sync-period`)."""
TOLERANCE = 0.1
"""A metric that lies so near to its target changes nothing (`--horizontal-pod-autoscaler-tolerance`)."""


@dataclass(frozen=True, slots=True)
class Policy:
    """By how much the number of pods may change within a period."""

    type: str
    """Percent of the pods at the period's beginning, or Pods."""
    value: int
    period_s: int

    def manifest(self) -> dict[str, Any]:
        """As Kubernetes writes it."""
        return {"type": self.type, "value": self.value, "periodSeconds": self.period_s}

    def limit(self, at_start: int, sign: int) -> int:
        """The number that may be reached from what there was when the period began; `sign` is 1 for up, -1 for down."""
        if self.type == "Pods":
            return at_start + sign * self.value
        reached = at_start * (1 + sign * self.value / 100)
        return math.ceil(reached) if sign > 0 else int(reached)


@dataclass(frozen=True, slots=True)
class Direction:
    """How fast it goes in one direction. Of several policies the one that lets it go furthest counts."""

    stabilization_s: int
    """The least change that was wanted within this time is made."""
    policies: tuple[Policy, ...]

    def manifest(self) -> dict[str, Any]:
        """As Kubernetes writes it."""
        return {
            "stabilizationWindowSeconds": self.stabilization_s,
            "selectPolicy": "Max",
            "policies": [policy.manifest() for policy in self.policies],
        }


@dataclass(frozen=True, slots=True)
class Behavior:
    """How fast it goes up and down."""

    up: Direction
    down: Direction

    def manifest(self) -> dict[str, Any]:
        """As Kubernetes writes it."""
        return {"scaleUp": self.up.manifest(), "scaleDown": self.down.manifest()}


def wanted_by_total(total: float, target: float, replicas: int) -> int:
    """Replicas for an external metric with a target `averageValue`: a total to be shared by all of them."""
    if replicas and abs(1.0 - total / (target * replicas)) <= TOLERANCE:
        return replicas
    return math.ceil(total / target)


def wanted_by_average(average: float, target: float, ready: int, replicas: int) -> int:
    """Replicas for a resource metric with a target utilisation, measured as an average over the ready pods.

    Pods that are not ready yet count as idle when the metric asks for more, so they soften the step up.
    """
    if not ready or abs(1.0 - average / target) <= TOLERANCE:
        return replicas
    if average < target or ready == replicas:
        return math.ceil(ready * average / target)
    softened = average * ready / replicas
    if softened <= target * (1 + TOLERANCE):
        return replicas
    return max(replicas, math.ceil(replicas * softened / target))


class HorizontalAutoscaler:
    """One autoscaler with what it remembers: what was wanted lately, and what was changed."""

    def __init__(self, behavior: Behavior, least: int, most: int) -> None:
        self._behavior = behavior
        self._least = least
        self._most = most
        self._wanted: deque[tuple[float, int]] = deque()
        self._changes: deque[tuple[float, int]] = deque()
        up, down = behavior.up, behavior.down
        self._remembered_s = max(policy.period_s for policy in (*up.policies, *down.policies))

    def step(self, now_s: float, replicas: int, wanted: int) -> int:
        """The number of replicas from now on, given how many there are and how many the metric asks for."""
        reached = self._limited(now_s, replicas, self._stabilised(now_s, replicas, wanted))
        reached = min(max(reached, self._least), self._most)
        if reached != replicas:
            self._changes.append((now_s, reached - replicas))
        return reached

    def _stabilised(self, now_s: float, replicas: int, wanted: int) -> int:
        up, down = self._behavior.up, self._behavior.down
        self._wanted.append((now_s, wanted))
        while now_s - self._wanted[0][0] > max(up.stabilization_s, down.stabilization_s):
            self._wanted.popleft()
        least = min(number for at_s, number in self._wanted if now_s - at_s <= up.stabilization_s)
        most = max(number for at_s, number in self._wanted if now_s - at_s <= down.stabilization_s)
        return min(max(replicas, least), most)

    def _limited(self, now_s: float, replicas: int, wanted: int) -> int:
        while self._changes and now_s - self._changes[0][0] > self._remembered_s:
            self._changes.popleft()
        sign = 1 if wanted > replicas else -1
        direction = self._behavior.up if sign > 0 else self._behavior.down
        limits = [policy.limit(self._at_start(now_s, replicas, policy), sign) for policy in direction.policies]
        if sign > 0:
            return min(wanted, max(replicas, *limits))
        return max(wanted, min(replicas, *limits))

    def _at_start(self, now_s: float, replicas: int, policy: Policy) -> int:
        """How many there were when the policy's period began."""
        return replicas - sum(change for at_s, change in self._changes if now_s - at_s < policy.period_s)
