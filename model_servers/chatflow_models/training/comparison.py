"""Whether one model is better than another on the same questions. Pure; used by `rehearsal`.

The verdict is an exact sign test on the in-scope questions that one model gets right and the other wrong (McNemar
1947, "Note on the sampling error of the difference between correlated proportions"), with near-duplicates counted as
one. How large each difference is, is said by a paired bootstrap over the same groups (Efron & Tibshirani 1993, chapter
13).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from chatflow_models.intent.calibration import ECE_BINS

from .judgement import Judged

SIGNIFICANT = 0.05
FEWEST = 20
"""Groups of questions behind a figure, without which no interval is given: resampling a handful makes it too narrow."""
_RESAMPLES = 2000
_INTERVAL = (2.5, 97.5)
_ROWS_AT_ONCE = 250

Float64 = NDArray[np.float64]


class Verdict(StrEnum):
    """What the comparison shows."""

    BETTER = "better"
    WORSE = "worse"
    NO_DIFFERENCE = "no difference shown"


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure of both models. The interval holds 95 % of the resampled differences."""

    new: float | None
    current: float | None
    low: float | None
    high: float | None

    @property
    def is_shown(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True, slots=True)
class Compared:
    """The new model against the current one."""

    verdict: Verdict
    won: int
    """In-scope groups of near-duplicates of which the new model gets more right."""
    lost: int
    p_value: float
    """Two-sided: how often equal models would differ at least so much."""
    differences: Mapping[str, Difference]
    """By the names of the fields of Evaluation."""


def compare(new: Judged, current: Judged, groups: NDArray[np.intp], threshold: float, seed: int) -> Compared:
    """The models on the same questions; `groups` are those of the near-duplicates among them."""
    _, group_of = np.unique(groups, return_inverse=True)
    inside = new.is_inside
    net = np.bincount(group_of, weights=inside * (new.is_right.astype(int) - current.is_right.astype(int)))
    won, lost = int((net > 0).sum()), int((net < 0).sum())
    p_value = float(binomtest(won, won + lost).pvalue) if won + lost else 1.0
    counts = _resampled(int(group_of.max()) + 1, seed)
    drawn = {name: np.empty(_RESAMPLES) for name in _figures(new, np.ones((1, len(inside))), threshold)}
    for start in range(0, _RESAMPLES, _ROWS_AT_ONCE):
        weights = counts[start : start + _ROWS_AT_ONCE, group_of]
        ours, theirs = _figures(new, weights, threshold), _figures(current, weights, threshold)
        for name in drawn:
            drawn[name][start : start + _ROWS_AT_ONCE] = ours[name] - theirs[name]
    found, known = new.evaluation(threshold), current.evaluation(threshold)
    behind = _behind(new, current, threshold)
    differences = {
        name: _difference(
            getattr(found, name), getattr(known, name), values, len(np.unique(group_of[behind.get(name, inside)]))
        )
        for name, values in drawn.items()
    }
    return Compared(_verdict(won, lost, p_value, float(net.sum())), won, lost, p_value, differences)


def _verdict(won: int, lost: int, p_value: float, net: float) -> Verdict:
    """`net` is by how many questions the new model is ahead: where groups and questions say the opposite, nothing is
    shown."""
    if p_value >= SIGNIFICANT or (won - lost) * net <= 0:
        return Verdict.NO_DIFFERENCE
    return Verdict.BETTER if won > lost else Verdict.WORSE


def _behind(new: Judged, current: Judged, threshold: float) -> Mapping[str, NDArray[np.bool_]]:
    """(n,) which questions a figure is about, where those are not all in scope."""
    passes = (new.confidence > threshold) | (current.confidence > threshold)
    return {"precision": new.is_inside & passes, "out_of_scope_leak": ~new.is_inside}


def _resampled(groups: int, seed: int) -> Float64:
    """(resamples, groups) how often each group is drawn."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(groups, np.full(groups, 1 / groups), size=_RESAMPLES).astype(np.float64)


def _figures(judged: Judged, weights: Float64, threshold: float) -> dict[str, Float64]:
    """The figures of Evaluation for (m, n) weights of the n questions: (m,) each, NaN where nothing is counted."""
    inside, right, passes = judged.is_inside, judged.is_right, judged.confidence > threshold
    bins = np.clip(np.ceil(judged.confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    gaps = np.zeros((len(inside), ECE_BINS))
    gaps[np.arange(len(inside)), bins] = inside * (judged.confidence - right)
    with np.errstate(invalid="ignore", divide="ignore"):
        total = weights @ inside
        return {
            "accuracy": weights @ (inside & right) / total,
            "calibration_error": np.abs(weights @ gaps).sum(axis=1) / total,
            "coverage": weights @ (inside & passes) / total,
            "precision": weights @ (inside & passes & right) / (weights @ (inside & passes)),
            "out_of_scope_leak": weights @ (~inside & passes) / (weights @ ~inside),
        }


def _difference(new: float | None, current: float | None, drawn: Float64, groups: int) -> Difference:
    known = drawn[np.isfinite(drawn)]
    if new is None or current is None or not len(known) or groups < FEWEST:
        return Difference(new, current, None, None)
    low, high = np.percentile(known, _INTERVAL).tolist()
    return Difference(new, current, low, high)
