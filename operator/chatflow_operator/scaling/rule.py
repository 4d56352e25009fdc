"""The rule by which model servers are added and removed: its numbers, its formula, its queries.

`resources.modelscaler` writes the ScaledObject from it and `scalers` follows it, so that what is simulated is what is
deployed. How it was chosen: docs/decisions/2026-11-23-scaling-on-requests.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from chatflow_api.names import METRIC_FIRST_TOKENS, METRIC_MODEL_WAITING, METRIC_TURNS_IN_FLIGHT, PREDICTOR

from chatflow_operator.scaling.horizontal import SYNC_S, Behavior, Direction, Policy

UTILISATION = 0.75
"""Share of its concurrency that a server is meant to use. The rest takes what comes while another server starts, and
what falls unevenly on the servers."""
WAITING_WEIGHT = 2
"""As how many running requests a waiting one counts. A server with a queue is full, whatever its concurrency was
thought to be."""
CACHE_USE = 0.8
"""Share of its KV cache that a server is meant to use; with a full one it throws requests out and begins them again."""
TARGET = 1
"""What one replica takes of the formula's value, which is a number of replicas. KEDA's fallback wants a whole one."""
BEHAVIOR = Behavior(
    # Fast up, since a chat's peak comes within a minute.
    up=Direction(0, (Policy("Percent", 100, 15), Policy("Pods", 4, 15))),
    # Slow down: a gateway that leaves ends streams, a model server takes minutes to come back.
    down=Direction(300, (Policy("Percent", 25, 60),)),
)
SCRAPE_S = 15
"""How often Prometheus reads servers and gateways."""
POLLING_S, WAKING_POLLING_S = 15, 5
"""How often KEDA looks whether there is anything to do; the second where it has to wake a model."""
FAILING_S = 150
"""How long a query may fail before the fallback: a server that has crashed looks for two minutes like one that is not
scraped."""
CPU_PERCENT = 40
"""Without KEDA or Prometheus: average CPU of a language model's servers, of what they request."""
INTENT_CPU_PERCENT = 70
"""The same of the intent server, which works on CPU alone."""
_SERVED_WINDOW = "2m"


class Signal(StrEnum):
    """What the formula is made of: totals over all servers of a model. The values name KEDA's triggers."""

    RUNNING = "running"
    """Requests that servers answer."""
    WAITING = "waiting"
    """Requests in the servers' own queues."""
    CACHE = "cache"
    """KV cache in use; a full server is 1."""
    HELD = "held"
    """Turns at the gateways that wait for the model; alone there is anything to count when no server runs."""


@dataclass(frozen=True, slots=True)
class Rule:
    """The rule for a model whose servers answer `concurrency` requests at a time."""

    concurrency: int

    @property
    def requests(self) -> float:
        """Requests that a server is meant to have."""
        return self.concurrency * UTILISATION

    @property
    def formula(self) -> str:
        """The number of replicas that the signals call for, in expr-lang, with a signal's name for its value."""
        load = f"({Signal.RUNNING} + {WAITING_WEIGHT} * {Signal.WAITING}) / {self.requests:g}"
        cache = f"{Signal.CACHE} / {CACHE_USE:g}"
        return f"max({load}, {cache}, {Signal.HELD} / {self.requests:g})"

    def replicas(self, running: float, waiting: float, cache: float, held: float) -> float:
        """What the formula says, before anything is rounded."""
        load = (running + WAITING_WEIGHT * waiting) / self.requests
        return max(load, cache / CACHE_USE, held / self.requests)


GENERATED_FROM = 58
"""Characters that Kubernetes keeps of a name before the five that it draws."""


def failures(polling_s: float) -> int:
    """How many queries fail in `FAILING_S`; KEDA and the autoscaler both ask."""
    return math.ceil(FAILING_S / polling_s + FAILING_S / SYNC_S)


def fallback_replicas(least: int, most: int) -> int:
    """How many run at least while Prometheus is away: half of what may."""
    return max(1, least, (most + 1) // 2)


@dataclass(frozen=True, slots=True)
class Series:
    """The time series of one model of one flow."""

    namespace: str
    service: str
    """Name of the InferenceService."""
    gateways: str
    """Name of the gateways' Deployment."""
    worker: str
    """Name of the worker's Deployment: it asks the model as well."""
    role: str

    def query(self, signal: Signal) -> str:
        """PromQL for a signal. Nothing, not 0, where its source is not scraped: KEDA then falls back."""
        pods = _pods_of(self.namespace, f"{self.service}{PREDICTOR}")
        match signal:
            case Signal.RUNNING:
                return self._of_servers(_once(f"vllm:num_requests_running{{{pods}}}", "pod, engine"))
            case Signal.WAITING:
                return self._of_servers(_once(f"vllm:num_requests_waiting{{{pods}}}", "pod, engine"))
            case Signal.CACHE:
                # A server of several engines has as many caches and is still one server.
                return self._of_servers(f"sum(avg by (pod) (vllm:kv_cache_usage_perc{{{pods}}}))")
            case Signal.HELD:
                held = _once(f'{METRIC_MODEL_WAITING}{{{self._askers},role="{self.role}"}}')
                return f"{held} or 0 * {turns_in_flight(self.namespace, self.gateways)}"

    @property
    def _askers(self) -> str:
        return _pods_of(self.namespace, self.gateways, self.worker)

    def _of_servers(self, measured: str) -> str:
        """A measurement, or 0 where no server runs. Answers that come without one mean that servers are not scraped."""
        served = f'{METRIC_FIRST_TOKENS}_count{{{self._askers},origin="{self.role}"}}[{_SERVED_WINDOW}]'
        return f"{measured} or (vector(0) unless on() (sum(rate({served})) > 0))"


def turns_in_flight(namespace: str, gateways: str) -> str:
    """PromQL for the messages that gateways answer or have waiting; nothing where gateways are not scraped."""
    return _once(f"{METRIC_TURNS_IN_FLIGHT}{{{_pods_of(namespace, gateways)}}}")


def _once(series: str, source: str = "pod") -> str:
    """The sum over sources. Prometheus may read one of them several times: once for each container of its pod, or by a
    PodMonitor and by annotations."""
    return f"sum(max by ({source}) ({series}))"


def _pods_of(namespace: str, *deployments: str) -> str:
    """Their names are the Deployment's, cut to what Kubernetes generates names from, a hash and a suffix. Another
    Deployment's name may go on where this one's ends."""
    names = "|".join(f"{deployment}-"[:GENERATED_FROM] for deployment in deployments)
    return f'namespace="{namespace}",pod=~"({names})[a-z0-9]*-?[a-z0-9]{{5}}"'
