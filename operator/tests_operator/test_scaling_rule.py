"""The rule's formula and the autoscaler's steps: what is deployed computes what is simulated."""

from __future__ import annotations

import math
import re

import pytest
from chatflow_operator.scaling.horizontal import (
    Behavior,
    Direction,
    HorizontalAutoscaler,
    Policy,
    wanted_by_average,
    wanted_by_total,
)
from chatflow_operator.scaling.rule import BEHAVIOR, Rule, Series, Signal, failures, fallback_replicas, turns_in_flight
from hypothesis import given
from hypothesis import strategies as st

COUNTS = st.integers(0, 100_000)


@given(st.integers(1, 1000), COUNTS, COUNTS, st.floats(0, 1000), COUNTS)
def test_the_formula_that_keda_evaluates_is_the_rule_that_is_simulated(
    concurrency: int, running: int, waiting: int, cache: float, held: int
) -> None:
    rule = Rule(concurrency)
    # Of expr-lang it uses only what Python writes alike.
    names = {Signal.RUNNING: running, Signal.WAITING: waiting, Signal.CACHE: cache, Signal.HELD: held}
    evaluated = eval(rule.formula, {"__builtins__": {}, "max": max}, {str(key): names[key] for key in names})  # noqa: S307
    assert math.isclose(evaluated, rule.replicas(running, waiting, cache, held))


@given(st.integers(1, 1000))
def test_one_held_turn_wakes_a_model_although_keda_counts_in_thousandths(concurrency: int) -> None:
    assert math.trunc(Rule(concurrency).replicas(0, 0, 0.0, 1) * 1000) > 0


@given(st.integers(1, 1000), COUNTS, st.floats(0, 1), st.integers(1, 50))
def test_no_signal_that_grows_takes_a_server_away(concurrency: int, running: int, cache: float, more: int) -> None:
    rule = Rule(concurrency)
    before = rule.replicas(running, 0, cache, 0)
    assert rule.replicas(running + more, 0, cache, 0) >= before
    assert rule.replicas(running, more, cache, 0) >= before
    assert rule.replicas(running, 0, cache + more, 0) >= before
    assert rule.replicas(running, 0, cache, more) >= before


@pytest.mark.parametrize(
    ("total", "replicas", "wanted"),
    [
        pytest.param(3.2, 3, 3, id="within the tolerance"),
        pytest.param(3.4, 3, 4, id="above it"),
        pytest.param(2.75, 3, 3, id="below, within"),
        pytest.param(1.2, 3, 2, id="below"),
        pytest.param(0.0, 3, 0, id="nothing to do"),
    ],
)
def test_a_total_is_shared_by_the_replicas(total: float, replicas: int, wanted: int) -> None:
    assert wanted_by_total(total, 1.0, replicas) == wanted


@pytest.mark.parametrize(
    ("average", "ready", "replicas", "wanted"),
    [
        pytest.param(0.8, 4, 4, 8, id="twice the target"),
        pytest.param(0.43, 4, 4, 4, id="within the tolerance"),
        pytest.param(0.8, 2, 4, 4, id="those that start are counted as idle"),
        pytest.param(0.2, 4, 4, 2, id="half the target"),
        pytest.param(0.9, 0, 2, 2, id="none is ready"),
    ],
)
def test_an_average_counts_pods_that_start_as_idle(average: float, ready: int, replicas: int, wanted: int) -> None:
    assert wanted_by_average(average, 0.4, ready, replicas) == wanted


@given(st.lists(st.integers(0, 60), min_size=1, max_size=80), st.integers(1, 4), st.integers(4, 40))
def test_steps_keep_the_bounds_and_the_pace(wanted: list[int], least: int, most: int) -> None:
    autoscaler, replicas = HorizontalAutoscaler(BEHAVIOR, least, most), least
    for number, one in enumerate(wanted):
        after = autoscaler.step(number * 15.0, replicas, one)
        assert least <= after <= most
        assert after <= max(2 * replicas, replicas + 4)
        assert after >= int(replicas * 0.75)
        if after < replicas:
            assert max(wanted[max(0, number - 20) : number + 1]) < replicas
        replicas = after


def test_one_period_allows_one_step_down() -> None:
    down = Direction(0, (Policy("Pods", 1, 60),))
    autoscaler, replicas, seen = HorizontalAutoscaler(Behavior(BEHAVIOR.up, down), 1, 10), 5, []
    for number in range(9):
        replicas = autoscaler.step(number * 15.0, replicas, 1)
        seen.append(replicas)
    assert seen == [4, 4, 4, 4, 3, 3, 3, 3, 2]


def test_the_fallback_waits_longer_than_a_crash_looks_like_a_lost_scrape() -> None:
    assert failures(15) == 20
    assert [fallback_replicas(least, most) for least, most in ((0, 1), (1, 4), (3, 4), (1, 7))] == [1, 2, 3, 4]


def pod(deployment: str, replica_set: str, suffix: str) -> str:
    """A pod's name as Kubernetes makes it."""
    return f"{deployment}-{replica_set}-"[:58] + suffix


def patterns(query: str) -> set[str]:
    """What it asks of the label `pod`; Prometheus anchors it."""
    return set(re.findall(r'pod=~"([^"]+)"', query))


LETTERS = "bcdfghjklmnpqrstvwxz2456789"
"""Of which Kubernetes draws."""


@given(
    flow=st.from_regex(r"[a-z]([a-z0-9-]{0,44}[a-z0-9])?", fullmatch=True),
    replica_set=st.text(LETTERS, min_size=5, max_size=10),
    suffix=st.text(LETTERS, min_size=5, max_size=5),
)
def test_a_query_counts_the_pods_of_its_own_deployment_however_long_their_names_are(
    flow: str, replica_set: str, suffix: str
) -> None:
    series = Series("shop", f"{flow}-llm", f"{flow}-gateway", f"{flow}-worker", "llm")
    (servers,) = patterns(series.query(Signal.RUNNING).partition(" or ")[0])
    (gateways,) = patterns(turns_in_flight("shop", f"{flow}-gateway"))
    assert re.fullmatch(servers, pod(f"{flow}-llm-predictor", replica_set, suffix))
    assert re.fullmatch(gateways, pod(f"{flow}-gateway", replica_set, suffix))
    askers = patterns(series.query(Signal.HELD))
    assert any(re.fullmatch(asker, pod(f"{flow}-worker", replica_set, suffix)) for asker in askers)
    if len(flow) < 20:
        assert not re.fullmatch(gateways, pod(f"{flow}-gateway-gateway", replica_set, suffix))
        assert not re.fullmatch(servers, pod(f"{flow}-llm-predictor-llm-predictor", replica_set, suffix))


def test_a_pod_that_is_read_several_times_counts_once() -> None:
    series = Series("shop", "a-llm", "a-gateway", "a-worker", "llm")
    for signal in (Signal.RUNNING, Signal.WAITING):
        assert series.query(signal).startswith("sum(max by (pod, engine) (vllm:num_requests_")
    assert series.query(Signal.HELD).startswith("sum(max by (pod) (")
