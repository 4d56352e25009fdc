"""Every metric of the runtime: its name, its labels and when it moves. Built by `bootstrap`, served on the admin port.

`web` counts what a channel sees (turns, connections, ratings), `turn` and `answerers` what happens inside.
Label values come from enums, error codes and action names of the manifest, never from users, so their number stays
small.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from itertools import accumulate
from typing import Literal

from chatflow_api.names import METRIC_FIRST_TOKENS, METRIC_MODEL_WAITING, METRIC_TURNS_IN_FLIGHT
from prometheus_client import CollectorRegistry, Gauge, ProcessCollector
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from chatflow_runtime.domain.breaker import Snapshot, State
from chatflow_runtime.domain.deliveries import Hook
from chatflow_runtime.domain.ladder import RUNG_OF
from chatflow_runtime.domain.reply import Origin, Reply, Usage

TURN_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""From a cached answer to a turn that waited in the queue behind others."""
MODEL_BUCKETS_S = (0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0)
"""First tokens, around the default deadline of 800 ms."""
CLASSIFICATION_BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.06, 0.1, 0.25, 1.0)
"""Classifications, around the default deadline of 60 ms."""


class Channel(StrEnum):
    """How a message came in."""

    REST = "rest"
    SSE = "sse"
    WEBSOCKET = "websocket"
    OPENAI = "openai"
    MESSAGES = "messages"
    """Answered later, through the outbox."""


class Connection(StrEnum):
    """Connections that stay open."""

    EVENTS = "events"
    WEBSOCKET = "websocket"


class CacheResult(StrEnum):
    """Where an answer given before was found."""

    HIT = "hit"
    SHARED = "shared"
    """In another gateway's answers."""
    MISS = "miss"


class Classified(StrEnum):
    """What came of a classification."""

    SURE = "sure"
    """In scope, and above the manifest's confidence."""
    UNSURE = "unsure"
    MISSED = "missed"
    """None came: the intent server was late or failed."""


class Delivered(StrEnum):
    """What came of an attempt to tell a webhook something."""

    DELIVERED = "delivered"
    FAILED = "failed"
    """It is told again later."""
    DEAD = "dead"
    """Given up: too old, or refused for good."""
    DROPPED = "dropped"
    """Gone before it could be told: too many waited."""


class Fault(StrEnum):
    """Why a question goes without a classification of the intent server, or without its embedding."""

    LATE = "late"
    FAILED = "failed"
    """Not reached, an error, or an answer that cannot be read."""
    OVERLOADED = "overloaded"
    """It had too much to do, or the gateway itself."""
    LEFT_ALONE = "left_alone"
    """Not asked: its breaker is open."""
    MISMATCH = "mismatch"
    """Classified, but the embedding is of another encoder than the index's: retrieval goes by words."""


CLIENT_LEFT = "client_left"
"""The code of a turn whose client closed the connection before the reply."""


class Tally(Collector):
    """A counter by labels. Everything that counts runs on one event loop, so that a dictionary does what
    prometheus_client's own counter needs a lock, a child and several calls for; a turn moves six of them."""

    def __init__(self, registry: CollectorRegistry, name: str, text: str, labels: Sequence[str] = ()) -> None:
        self._name = name
        self._text = text
        self._labels = labels
        self._counts: dict[tuple[str, ...], float] = {} if labels else {(): 0}
        registry.register(self)

    def add(self, *values: str, by: float = 1) -> None:
        """Count, under the labels' values."""
        self._counts[values] = self._counts.get(values, 0) + by

    def collect(self) -> Iterable[CounterMetricFamily]:
        """What a scrape reads."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for values, count in list(self._counts.items()):
            family.add_metric(values, count)
        yield family


class Spread(Collector):
    """A histogram by labels, of durations in seconds; lean for the same reason."""

    def __init__(
        self, registry: CollectorRegistry, name: str, text: str, bounds_s: Sequence[float], labels: Sequence[str] = ()
    ) -> None:
        self._name = name
        self._text = text
        self._labels = labels
        self._bounds_s = bounds_s
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums_s: dict[tuple[str, ...], float] = {}
        registry.register(self)

    def add(self, seconds: float, *values: str) -> None:
        """Observe a duration, under the labels' values."""
        counts = self._counts.get(values)
        if counts is None:
            counts = self._counts[values] = [0] * (len(self._bounds_s) + 1)
            self._sums_s[values] = 0.0
        counts[bisect_left(self._bounds_s, seconds)] += 1
        self._sums_s[values] += seconds

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """What a scrape reads."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        bounds = [*map(floatToGoString, self._bounds_s), "+Inf"]
        for values, counts in list(self._counts.items()):
            buckets = list(zip(bounds, accumulate(counts), strict=True))
            family.add_metric(values, buckets, self._sums_s[values])
        yield family


class Metrics:
    """The runtime's metrics in one registry. Durations are in seconds."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._define_turns(registry)
        self._define_answers(registry)
        self._define_edges(registry)
        ProcessCollector(registry=registry)

    def _define_turns(self, registry: CollectorRegistry) -> None:
        self._turns = Tally(registry, "chatflow_turns", "Messages answered.", ("channel", "rung", "origin"))
        self._turn_seconds = Spread(
            registry,
            "chatflow_turn_seconds",
            "From the message to its whole reply, waiting in the queue included.",
            TURN_BUCKETS_S,
            ("channel", "rung"),
        )
        self._failures = Tally(
            registry,
            "chatflow_turn_failures",
            "Messages that got a problem instead of a reply, by its code; client_left when nobody waited any longer.",
            ("channel", "code"),
        )
        self._turns_in_flight = 0
        in_flight = Gauge(METRIC_TURNS_IN_FLIGHT, "Messages being answered or waiting.", registry=registry)
        in_flight.set_function(lambda: self._turns_in_flight)
        self._accepted = Tally(registry, "chatflow_messages_accepted", "Messages accepted to be answered later.")
        self._dead_letters = Tally(
            registry, "chatflow_dead_letters", "Messages given up after several attempts, by the last error.", ("code",)
        )
        self._backlog = Gauge("chatflow_backlog", "Turns under way in all processes of the flow.", registry=registry)
        self._pressure = Gauge(
            "chatflow_pressure",
            "Share of new conversations that this process turns away because it cannot keep up.",
            registry=registry,
        )
        self._deliveries = Tally(
            registry,
            "chatflow_webhook_deliveries",
            "Attempts to tell webhooks, by what came of them.",
            ("hook", "outcome"),
        )
        self._hooks_waiting = Gauge(
            "chatflow_webhook_waiting", "Deliveries that wait or are tried again.", ("hook",), registry=registry
        )
        self._shed = Tally(registry, "chatflow_shed", "New conversations turned away under load.")
        self._claims_lost = Tally(
            registry, "chatflow_claims_lost", "Turns decided again because another owner had taken over."
        )

    def _define_answers(self, registry: CollectorRegistry) -> None:
        self._answers = Tally(
            registry, "chatflow_answers", "Answers made, each once however often it is sent.", ("rung", "origin")
        )
        self._first_token = Spread(
            registry,
            METRIC_FIRST_TOKENS,
            "From asking a language model to its first token.",
            MODEL_BUCKETS_S,
            ("origin",),
        )
        self._model_errors = Tally(
            registry, "chatflow_model_errors", "Language models that gave no whole answer.", ("origin", "code")
        )
        self._tokens = Tally(
            registry, "chatflow_tokens", "Tokens, as the models' servers counted them.", ("origin", "kind")
        )
        self._action_errors = Tally(registry, "chatflow_action_errors", "Business calls that failed.", ("action",))
        self._classifications = Tally(registry, "chatflow_classifications", "Intent classifications.", ("outcome",))
        self._classification_seconds = Spread(
            registry,
            "chatflow_classification_seconds",
            "Time a turn waited for its classification.",
            CLASSIFICATION_BUCKETS_S,
        )
        self._faults = Tally(
            registry,
            "chatflow_intent_faults",
            "Questions that the intent server did not classify, or without a usable embedding.",
            ("reason",),
        )
        self._waiting = Gauge(
            METRIC_MODEL_WAITING,
            "Turns that want a language model now, also while none of its servers runs.",
            ("role",),
            registry=registry,
        )
        self._breakers = Gauge(
            "chatflow_breaker_state",
            "1 for the state that a backend's circuit breaker is in.",
            ("backend", "state"),
            registry=registry,
        )
        self._breaker_openings = Tally(
            registry, "chatflow_breaker_openings", "Times that a backend was left alone.", ("backend",)
        )
        self._breaker_refused = Tally(
            registry, "chatflow_breaker_refused", "Calls that were not made meanwhile.", ("backend",)
        )
        self._concurrency = Gauge(
            "chatflow_concurrency_limit",
            "Answers of a language model that may be under way at once.",
            ("role",),
            registry=registry,
        )
        self._under_way = Gauge(
            "chatflow_concurrency_under_way", "Answers of a language model under way.", ("role",), registry=registry
        )
        self._overloaded = Tally(
            registry, "chatflow_overloaded", "Turns for which a language model had no place.", ("role",)
        )
        self._handoffs = Tally(registry, "chatflow_handoffs", "Conversations handed over to a person.", ("reason",))
        self._cache = Tally(registry, "chatflow_answer_cache", "Look-ups in the answer cache.", ("result",))

    def _define_edges(self, registry: CollectorRegistry) -> None:
        self._replica_shortfalls = Tally(
            registry, "chatflow_replica_shortfalls", "Waits for replicas in which too few of them answered."
        )
        self._store_errors = Tally(
            registry, "chatflow_store_errors", "Calls to the state server that failed.", ("code",)
        )
        self._connections = Gauge("chatflow_connections", "Open streams.", ("kind",), registry=registry)
        self._ratings = Tally(registry, "chatflow_ratings", "Ratings given.", ("score",))

    def accepted(self) -> None:
        """A message was accepted, to be answered later."""
        self._accepted.add()

    def dead_letter(self, code: str) -> None:
        """One of them was given up."""
        self._dead_letters.add(code)

    def delivery(self, hook: Hook, outcome: Delivered) -> None:
        """A webhook was told, or not."""
        self._deliveries.add(hook, outcome)

    def watch_hook(self, hook: Hook, waiting: Callable[[], float]) -> None:
        """Read from now on how much a webhook is still to be told."""
        self._hooks_waiting.labels(hook.value).set_function(waiting)

    def turn_began(self) -> None:
        """A message came in on any channel."""
        self._turns_in_flight += 1

    def turn_ended(self) -> None:
        """It is over, however it went."""
        self._turns_in_flight -= 1

    def turn_answered(self, channel: Channel, reply: Reply, seconds: float) -> None:
        """A reply went out on a channel."""
        self._turns.add(channel, reply.rung, reply.origin)
        self._turn_seconds.add(seconds, channel, reply.rung)

    def turn_failed(self, channel: Channel, code: str) -> None:
        """A problem went out instead, or nothing because the client had left."""
        self._failures.add(channel, code)

    def watch_admission(self, backlog: Callable[[], float], pressure: Callable[[], float]) -> None:
        """Read from now on how many turns the flow has under way, and the share of new conversations that this process
        turns away because it cannot keep up."""
        self._backlog.set_function(backlog)
        self._pressure.set_function(pressure)

    def shed(self) -> None:
        """A new conversation was turned away."""
        self._shed.add()

    def claim_lost(self) -> None:
        """A turn is decided again."""
        self._claims_lost.add()

    def answered(self, origin: Origin) -> None:
        """An answerer gave an answer."""
        self._answers.add(RUNG_OF[origin], origin)

    def first_token(self, origin: Origin, seconds: float) -> None:
        """A language model began to answer."""
        self._first_token.add(seconds, origin)

    def model_error(self, origin: Origin, code: str) -> None:
        """A language model was too late, broke off or refused."""
        self._model_errors.add(origin, code)

    def tokens(self, origin: Origin, usage: Usage) -> None:
        """A language model's server told what an answer took."""
        self._tokens.add(origin, "prompt", by=usage.prompt_tokens)
        self._tokens.add(origin, "completion", by=usage.completion_tokens)

    def action_error(self, action: str) -> None:
        """A business call failed."""
        self._action_errors.add(action)

    def handed_over(self, reason: Literal["phrase", "intent"]) -> None:
        """A person was asked to take over."""
        self._handoffs.add(reason)

    def classified(self, outcome: Classified, seconds: float) -> None:
        """A classification came, or was given up."""
        self._classifications.add(outcome)
        self._classification_seconds.add(seconds)

    def intent_fault(self, fault: Fault) -> None:
        """The intent server did not do its part for a question."""
        self._faults.add(fault)

    def watch_demand(self, origin: Origin, turns: Callable[[], float]) -> None:
        """Read from now on how many turns want a model."""
        self._waiting.labels(origin.value).set_function(turns)

    def watch_breaker(self, backend: str, snapshot: Callable[[], Snapshot]) -> None:
        """Read a breaker's state from now on."""
        for state in State:
            self._breakers.labels(backend, state.value).set_function(
                lambda state=state: float(snapshot().state is state)  # type: ignore[misc]  # Bound now, not later.
            )

    def watch_concurrency(self, origin: Origin, limit: Callable[[], float], under_way: Callable[[], float]) -> None:
        """Read from now on how many answers of a model may be under way, and how many are."""
        self._concurrency.labels(origin.value).set_function(limit)
        self._under_way.labels(origin.value).set_function(under_way)

    def overloaded(self, origin: Origin) -> None:
        """A model had no place for a turn."""
        self._overloaded.add(origin)

    def breaker_opened(self, backend: str) -> None:
        """A backend is left alone from now on."""
        self._breaker_openings.add(backend)

    def breaker_refused(self, backend: str) -> None:
        """A call was not made."""
        self._breaker_refused.add(backend)

    def cache_lookup(self, result: CacheResult) -> None:
        """The answer cache was asked."""
        self._cache.add(result)

    def replicas_fell_short(self) -> None:
        """What was written had not reached as many replicas as it should, in the time for that."""
        self._replica_shortfalls.add()

    def store_error(self, code: str) -> None:
        """The state server did not answer, or not as it should."""
        self._store_errors.add(code)

    def opened(self, kind: Connection) -> None:
        """A stream was opened."""
        self._connections.labels(kind.value).inc()

    def closed(self, kind: Connection) -> None:
        """A stream is over."""
        self._connections.labels(kind.value).dec()

    def rated(self, score: int) -> None:
        """A user rated; the score lies within the manifest's scale of at most 10."""
        self._ratings.add(str(score))
