"""The rule beside CPU and an oracle, on the same requests: the figures that `chatflow simulate` prints."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from chatflow_operator.scaling import rule
from chatflow_operator.scaling.profile import Arrivals
from chatflow_operator.scaling.scalers import CpuScaler, ForesightScaler, RuleScaler, Scaler
from chatflow_operator.scaling.servers import ServerModel
from chatflow_operator.scaling.simulation import Outcome, Simulation

QUEUE_TARGET_S = 1.0
"""What the 95th percentile of the queue time is to stay under."""
COST_TARGET = 1.25
"""At most so many times the GPU time of the oracle."""
USUAL_CPU_PERCENT = 70
"""What an autoscaler on CPU is commonly set to."""
_LEAST_USE, _MOST_USE, _ATTEMPTS = 0.6, 1.0, 4


@dataclass(frozen=True, slots=True)
class Setting:
    """What is simulated besides the load."""

    model: ServerModel
    rule: rule.Rule
    least: int
    most: int
    cooldown_s: float
    gpus: int
    """GPUs of a server; one on CPU counts as one, so that costs compare."""


@dataclass(frozen=True, slots=True)
class Row:
    """One way to scale, in figures."""

    name: str
    outcome: Outcome
    queue_s: tuple[float, float, float]
    """At the 50th, 95th and 99th percentile."""
    latency_s: tuple[float, float]
    """At the 50th and 95th."""
    late: float
    """Share of requests that waited longer than `QUEUE_TARGET_S`."""
    gpu_hours: float

    @property
    def peak(self) -> int:
        """The most servers that there were at a time."""
        return max(sample.ordered for sample in self.outcome.samples)


@dataclass(frozen=True, slots=True)
class Comparison:
    """All ways to scale on the same requests."""

    ours: Row
    cpu: tuple[Row, ...]
    oracle: Row

    @property
    def rows(self) -> tuple[Row, ...]:
        """From the rule to the oracle."""
        return (self.ours, *self.cpu, self.oracle)

    def cost(self, row: Row) -> float:
        """GPU time as a multiple of the oracle's."""
        return row.gpu_hours / self.oracle.gpu_hours

    @property
    def is_quick(self) -> bool:
        """Whether the rule keeps the queue time."""
        return self.ours.queue_s[1] < QUEUE_TARGET_S

    @property
    def is_thrifty(self) -> bool:
        """Whether the rule keeps the cost."""
        return self.cost(self.ours) <= COST_TARGET


def compare(arrivals: Arrivals, setting: Setting) -> Comparison:
    """Every way to scale on the same requests."""
    model, least, most = setting.model, setting.least, setting.most

    def run(name: str, scaler: Scaler) -> Row:
        return _row(name, Simulation(arrivals, model, scaler, max(least, 1)).run(), setting.gpus)

    ours = run("ChatFlow's rule", RuleScaler(setting.rule, least, most, setting.cooldown_s))
    percents = (rule.CPU_PERCENT, USUAL_CPU_PERCENT)
    cpu = tuple(run(f"CPU at {percent} %", CpuScaler(percent, least, most)) for percent in percents)
    loads = [sample.running + sample.waiting for sample in ours.outcome.samples]

    def foresee(use: float) -> Outcome:
        scaler = ForesightScaler(loads, rule.SCRAPE_S, use * model.slots, model.start_s, least, most)
        return Simulation(arrivals, model, scaler, max(least, 1)).run()

    return Comparison(ours, cpu, _row("oracle", _cheapest(foresee), setting.gpus))


def _cheapest(foresee: Callable[[float], Outcome]) -> Outcome:
    """The oracle at the highest use of its servers at which the queue time still holds, by bisection."""
    low, high = _LEAST_USE, _MOST_USE
    best: Outcome | None = None
    for _ in range(_ATTEMPTS):
        use = (low + high) / 2
        outcome = foresee(use)
        if sum(one > QUEUE_TARGET_S for one in outcome.queue_s) < 0.05 * len(outcome.queue_s):
            low, best = use, outcome
        else:
            high = use
    return best or foresee(low)


def _row(name: str, outcome: Outcome, gpus: int) -> Row:
    queue_s, latency_s = sorted(outcome.queue_s), sorted(outcome.latency_s)
    late = 1 - bisect_right(queue_s, QUEUE_TARGET_S) / max(len(queue_s), 1)
    return Row(
        name,
        outcome,
        (percentile(queue_s, 0.5), percentile(queue_s, 0.95), percentile(queue_s, 0.99)),
        (percentile(latency_s, 0.5), percentile(latency_s, 0.95)),
        late,
        outcome.paid_s * max(gpus, 1) / 3600,
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which a share of ordered values lies; 0 of none."""
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0
