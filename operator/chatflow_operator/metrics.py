"""The operator's own metrics; every name stands here."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Counters and times of reconciling and of calls to the API server."""

    def __init__(self, registry: CollectorRegistry) -> None:
        ProcessCollector(registry=registry)
        self._reconciles = Counter(
            "chatflow_operator_reconciles", "Flows looked at, by outcome.", ("outcome",), registry=registry
        )
        self._reconcile_seconds = Histogram(
            "chatflow_operator_reconcile_seconds",
            "Time to bring one flow up to date.",
            buckets=BUCKETS_S,
            registry=registry,
        )
        self._errors = Counter(
            "chatflow_operator_errors", "What went wrong, by the error's code.", ("code",), registry=registry
        )
        self._calls = Counter(
            "chatflow_operator_api_calls",
            "Calls to the API server; code none: no answer.",
            ("verb", "kind", "code"),
            registry=registry,
        )
        self._call_seconds = Histogram(
            "chatflow_operator_api_call_seconds", "Time of a call.", ("verb",), buckets=BUCKETS_S, registry=registry
        )
        self._drift = Counter(
            "chatflow_operator_repairs",
            "Objects that somebody else had changed or deleted.",
            ("kind",),
            registry=registry,
        )
        self._queue = Gauge("chatflow_operator_queue", "Flows that wait for their turn.", registry=registry)
        self._flows = Gauge("chatflow_operator_flows", "Flows that the operator looks after.", registry=registry)

    def reconciled(self, outcome: str, seconds: float) -> None:
        """A flow was looked at."""
        self._reconciles.labels(outcome).inc()
        self._reconcile_seconds.observe(seconds)

    def failed(self, code: str) -> None:
        """Something went wrong."""
        self._errors.labels(code).inc()

    def api_call(self, verb: str, kind: str, code: str, seconds: float) -> None:
        """A call to the API server has ended."""
        self._calls.labels(verb, kind, code).inc()
        self._call_seconds.labels(verb).observe(seconds)

    def repaired(self, kind: str) -> None:
        """Somebody else's change was undone."""
        self._drift.labels(kind).inc()

    def watch(self, queue: Callable[[], int], flows: Callable[[], int]) -> None:
        """Read the sizes of queue and cache whenever somebody asks."""
        self._queue.set_function(queue)
        self._flows.set_function(flows)
