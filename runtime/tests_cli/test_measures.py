"""The figures of an evaluation, by their definitions."""

from __future__ import annotations

import pytest
from chatflow_cli.measures import Judged, calibration_error, measure
from hypothesis import given
from hypothesis import strategies as st


def judged(
    intent: str,
    predicted: str | None,
    confidence: float = 0.9,
    *,
    acted_on: bool = True,
    answers: str = "",
    found: str = "",
    origin: str = "knowledge",
) -> Judged:
    rung = {"static": "L2", "llm": "L1"}.get(origin, "L0")
    return Judged("text", intent, tuple(answers), predicted, confidence, acted_on, tuple(found), rung, origin)


def test_every_figure_follows_its_definition() -> None:
    figures = measure(
        [
            judged("refund", "refund", answers="ab", found="axyzv"),
            judged("refund", "refund", answers="ab", found="xyzvb"),
            judged("refund", "delivery", answers="a", found="bcdefa"),
            judged("order", "order", acted_on=False, origin="static"),
            judged("order", "order", origin="action"),
            judged("out_of_scope", "refund"),
            judged("out_of_scope", "out_of_scope", acted_on=False, origin="static"),
            judged("out_of_scope", "order", origin="action"),
        ]
    )
    assert figures.questions == 8
    assert figures.intent_accuracy == pytest.approx(4 / 5)
    assert figures.precision_above_threshold == pytest.approx(3 / 6)
    assert figures.coverage_above_threshold == pytest.approx(4 / 5)
    assert figures.out_of_scope_above_threshold == pytest.approx(2 / 3)
    assert figures.found_at_1 == pytest.approx(1 / 3)
    assert figures.found_at_5 == pytest.approx(2 / 3)
    assert figures.out_of_scope_held_back == pytest.approx(2 / 3)
    assert figures.rungs == {"L0": 6 / 8, "L2": 2 / 8}
    assert figures.origins == {"action": 2 / 8, "knowledge": 4 / 8, "static": 2 / 8}


def test_a_share_of_nothing_is_none() -> None:
    figures = measure([judged("refund", "refund", acted_on=False)])
    assert figures.precision_above_threshold is None
    assert figures.out_of_scope_held_back is None
    assert figures.found_at_1 is None


def test_calibration_error_weighs_the_gap_of_each_bin() -> None:
    sure = [judged("a", "a", 0.95), judged("a", "b", 0.95)]
    unsure = [judged("a", "a", 0.5), judged("a", "b", 0.5)]
    assert calibration_error(sure) == pytest.approx(0.45)
    assert calibration_error(unsure) == pytest.approx(0.0)
    assert calibration_error(sure + unsure) == pytest.approx(0.225)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1))
def test_calibration_error_lies_between_the_mean_gap_and_one(pairs: list[tuple[float, bool]]) -> None:
    questions = [judged("a", "a" if right else "b", confidence) for confidence, right in pairs]
    error = calibration_error(questions)
    assert error is not None
    overall = abs(sum(confidence - right for confidence, right in pairs)) / len(pairs)
    assert overall - 1e-9 <= error <= 1 + 1e-9
