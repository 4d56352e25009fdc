"""The runtime's lean counters and histograms, held to prometheus_client's own."""

from __future__ import annotations

from chatflow_runtime.domain.ladder import RUNG_OF
from chatflow_runtime.domain.reply import Origin, Usage
from chatflow_runtime.metrics import TURN_BUCKETS_S, Metrics, Spread, Tally
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

LABELS = st.sampled_from(["a", "b", 'c"\n\\'])


def lines(registry: CollectorRegistry) -> set[str]:
    """The samples of a scrape, without the creation times that the client's own add."""
    text = generate_latest(registry).decode()
    return {line for line in text.splitlines() if "_created" not in line}


@given(st.lists(st.tuples(LABELS, LABELS, st.integers(0, 5))))
def test_a_tally_reads_like_a_counter(counted: list[tuple[str, str, int]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    tally, counter = Tally(ours, "x", "text", ("one", "two")), Counter("x", "text", ("one", "two"), registry=theirs)
    for one, two, by in counted:
        tally.add(one, two, by=by)
        counter.labels(one, two).inc(by)
    assert lines(ours) == lines(theirs)


@given(st.lists(st.tuples(LABELS, st.sampled_from(TURN_BUCKETS_S) | st.integers(0, 2**20).map(lambda n: n / 2**10))))
def test_a_spread_reads_like_a_histogram(observed: list[tuple[str, float]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    spread = Spread(ours, "x", "text", TURN_BUCKETS_S, ("one",))
    histogram = Histogram("x", "text", ("one",), buckets=TURN_BUCKETS_S, registry=theirs)
    for one, seconds in observed:
        spread.add(seconds, one)
        histogram.labels(one).observe(seconds)
    assert lines(ours) == lines(theirs)


def test_metrics_count_under_their_labels() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    for origin in Origin:
        metrics.answered(origin)
    metrics.tokens(Origin.LLM, Usage(20, 8))
    metrics.shed()
    assert all(
        registry.get_sample_value("chatflow_answers_total", {"rung": rung, "origin": origin}) == 1
        for origin, rung in RUNG_OF.items()
    )
    assert registry.get_sample_value("chatflow_tokens_total", {"origin": "llm", "kind": "completion"}) == 8
    assert registry.get_sample_value("chatflow_shed_total") == 1
    assert registry.get_sample_value("chatflow_claims_lost_total") == 0
