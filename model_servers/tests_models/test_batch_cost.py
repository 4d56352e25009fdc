"""What a batch is expected to take: as warmed up, and as fast as the model is now."""

from __future__ import annotations

import pytest
from chatflow_models.serving.batch_cost import BatchCost
from hypothesis import given
from hypothesis import strategies as st

FIXED_S, TEXT_S = 0.003, 0.002
SIZES = (1, 2, 4, 8, 16, 32)


def seconds(texts: int) -> float:
    return FIXED_S + texts * TEXT_S


def test_the_shape_comes_from_the_warm_up_and_the_speed_from_what_came_since() -> None:
    cost = BatchCost({size: seconds(size) for size in SIZES})
    assert cost.of(20, most=8) == pytest.approx(3 * FIXED_S + 20 * TEXT_S)
    assert cost.of(0, most=8) == 0
    assert cost.fitting(seconds(10) + TEXT_S / 2) == 10
    for size in SIZES * 20:
        cost.note(size, 3 * seconds(size))
    assert cost.of(8, most=8) == pytest.approx(3 * seconds(8), rel=1e-3)


@given(
    fixed_s=st.floats(0, 0.1), text_s=st.floats(0, 0.1), noted=st.lists(st.tuples(st.integers(1, 64), st.floats(0, 9))),
    budget_s=st.floats(0, 1),
)  # fmt: skip
def test_a_batch_is_never_empty_and_costs_never_fall_with_its_size(
    fixed_s: float, text_s: float, noted: list[tuple[int, float]], budget_s: float
) -> None:
    cost = BatchCost({size: fixed_s + size * text_s for size in SIZES})
    for texts, took_s in noted:
        cost.note(texts, took_s)
    most = cost.fitting(budget_s)
    assert most >= 1
    assert most == 1 or cost.of(most, most) <= budget_s * (1 + 1e-9)
    assert 0 <= cost.of(1, 8) <= cost.of(2, 8) <= cost.of(9, 8)
