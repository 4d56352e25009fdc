"""Every metric of the runtime: its name, its labels and when it moves. Built by `bootstrap`, served on the admin port.

`web` counts what a channel sees (turns, connections, ratings), `turn` and `answerers` what happens inside.
Label values come from enums, error codes and action names of the manifest, never from users, so their number stays
small.
"""

from __future__ import annotations

from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from chatflow_runtime.domain.ladder import RUNG_OF
from chatflow_runtime.domain.reply import Origin, Reply, Rung, Usage

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


class Connection(StrEnum):
    """Connections that stay open."""

    EVENTS = "events"
    WEBSOCKET = "websocket"


class Classified(StrEnum):
    """What came of a classification."""

    SURE = "sure"
    """In scope, and above the manifest's confidence."""
    UNSURE = "unsure"


CLIENT_LEFT = "client_left"
"""The code of a turn whose client closed the connection before the reply."""


class Metrics:
    """The runtime's metrics in one registry. Durations are in seconds."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._define_turns(registry)
        self._define_answers(registry)
        self._define_edges(registry)
        ProcessCollector(registry=registry)
        # Looking children up by their labels costs more than counting; the hot ones are kept.
        self._turn_children: dict[tuple[Channel, Rung, Origin], Counter] = {}
        self._seconds_children: dict[tuple[Channel, Rung], Histogram] = {}
        self._answer_children = {
            origin: self._answers.labels(rung.value, origin.value) for origin, rung in RUNG_OF.items()
        }
        self._classified_children = {outcome: self._classifications.labels(outcome.value) for outcome in Classified}
        self._cache_children = {is_hit: self._cache.labels("hit" if is_hit else "miss") for is_hit in (True, False)}

    def _define_turns(self, registry: CollectorRegistry) -> None:
        self._turns = Counter("chatflow_turns", "Messages answered.", ("channel", "rung", "origin"), registry=registry)
        self._seconds = Histogram(
            "chatflow_turn_seconds",
            "From the message to its whole reply, waiting in the queue included.",
            ("channel", "rung"),
            buckets=TURN_BUCKETS_S,
            registry=registry,
        )
        self._failures = Counter(
            "chatflow_turn_failures",
            "Messages that got a problem instead of a reply, by its code; client_left when nobody waited any longer.",
            ("channel", "code"),
            registry=registry,
        )
        self._turns_in_flight = 0
        in_flight = Gauge("chatflow_turns_in_flight", "Messages being answered or waiting.", registry=registry)
        # Read when it is scraped: a gauge that is set twice a turn would cost 2 us more.
        in_flight.set_function(lambda: self._turns_in_flight)
        self._shed = Counter("chatflow_shed", "New conversations turned away under load.", registry=registry)
        self._claims_lost = Counter(
            "chatflow_claims_lost", "Turns decided again because another owner had taken over.", registry=registry
        )

    def _define_answers(self, registry: CollectorRegistry) -> None:
        self._answers = Counter(
            "chatflow_answers",
            "Answers made, each once however often it is sent.",
            ("rung", "origin"),
            registry=registry,
        )
        self._first_token = Histogram(
            "chatflow_first_token_seconds",
            "From asking a language model to its first token.",
            ("origin",),
            buckets=MODEL_BUCKETS_S,
            registry=registry,
        )
        self._model_errors = Counter(
            "chatflow_model_errors",
            "Language models that gave no whole answer.",
            ("origin", "code"),
            registry=registry,
        )
        self._tokens = Counter(
            "chatflow_tokens", "Tokens, as the models' servers counted them.", ("origin", "kind"), registry=registry
        )
        self._action_errors = Counter(
            "chatflow_action_errors", "Business calls that failed.", ("action",), registry=registry
        )
        self._classifications = Counter(
            "chatflow_classifications", "Intent classifications.", ("outcome",), registry=registry
        )
        self._classification_seconds = Histogram(
            "chatflow_classification_seconds",
            "Time a turn waited for its classification.",
            buckets=CLASSIFICATION_BUCKETS_S,
            registry=registry,
        )
        self._cache = Counter("chatflow_answer_cache", "Look-ups in the answer cache.", ("result",), registry=registry)

    def _define_edges(self, registry: CollectorRegistry) -> None:
        self._store_errors = Counter(
            "chatflow_store_errors", "Calls to the state server that failed.", ("code",), registry=registry
        )
        self._connections = Gauge("chatflow_connections", "Open streams.", ("kind",), registry=registry)
        self._ratings = Counter("chatflow_ratings", "Ratings given.", ("score",), registry=registry)

    def turn_began(self) -> None:
        """A message came in on any channel."""
        self._turns_in_flight += 1

    def turn_ended(self) -> None:
        """It is over, however it went."""
        self._turns_in_flight -= 1

    def turn_answered(self, channel: Channel, reply: Reply, seconds: float) -> None:
        """A reply went out on a channel."""
        key = (channel, reply.rung, reply.origin)
        turns = self._turn_children.get(key)
        if turns is None:
            turns = self._turn_children[key] = self._turns.labels(*key)
        turns.inc()
        durations = self._seconds_children.get(key[:2])
        if durations is None:
            durations = self._seconds_children[key[:2]] = self._seconds.labels(*key[:2])
        durations.observe(seconds)

    def turn_failed(self, channel: Channel, code: str) -> None:
        """A problem went out instead, or nothing because the client had left."""
        self._failures.labels(channel.value, code).inc()

    def shed(self) -> None:
        """A new conversation was turned away."""
        self._shed.inc()

    def claim_lost(self) -> None:
        """A turn is decided again."""
        self._claims_lost.inc()

    def answered(self, origin: Origin) -> None:
        """An answerer gave an answer."""
        self._answer_children[origin].inc()

    def first_token(self, origin: Origin, seconds: float) -> None:
        """A language model began to answer."""
        self._first_token.labels(origin.value).observe(seconds)

    def model_error(self, origin: Origin, code: str) -> None:
        """A language model was too late, broke off or refused."""
        self._model_errors.labels(origin.value, code).inc()

    def tokens(self, origin: Origin, usage: Usage) -> None:
        """A language model's server told what an answer took."""
        self._tokens.labels(origin.value, "prompt").inc(usage.prompt_tokens)
        self._tokens.labels(origin.value, "completion").inc(usage.completion_tokens)

    def action_error(self, action: str) -> None:
        """A business call failed."""
        self._action_errors.labels(action).inc()

    def classified(self, outcome: Classified, seconds: float) -> None:
        """A classification came, or was given up."""
        self._classified_children[outcome].inc()
        self._classification_seconds.observe(seconds)

    def cache_lookup(self, *, is_hit: bool) -> None:
        """The answer cache was asked."""
        self._cache_children[is_hit].inc()

    def store_error(self, code: str) -> None:
        """The state server did not answer, or not as it should."""
        self._store_errors.labels(code).inc()

    def opened(self, kind: Connection) -> None:
        """A stream was opened."""
        self._connections.labels(kind.value).inc()

    def closed(self, kind: Connection) -> None:
        """A stream is over."""
        self._connections.labels(kind.value).dec()

    def rated(self, score: int) -> None:
        """A user rated; the score lies within the manifest's scale of at most 10."""
        self._ratings.labels(str(score)).inc()
