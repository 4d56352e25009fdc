"""Fits the numbers of a calibration on held-out logits and likeness. Used by `fit`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from chatflow_models.intent.calibration import Calibration
from chatflow_models.intent.features import Float32

OUT_OF_SCOPE_SHARE = 0.1
"""Weight of out-of-scope questions in the calibration, 0 to 1; their share among the examples means nothing. More holds
back more of them, at the price of in-scope accuracy where out-of-scope is counted among the answers: on CLINC150's
validation split 0.01 gives .959 and 5 % of its out-of-scope questions above 0.85, 0.1 gives .948 and 3 %."""
_TYPICAL_LOG_TEMPERATURE, _LOG_TEMPERATURE_SPREAD, _BIAS_SPREAD = -0.5, 0.5, 2.0
"""Where they usually lie: normal priors, which decide for a handful of questions and fade with hundreds."""
_NEIGHBOUR_SPREAD = 10.0
"""Likeness lies in -1 to 1, so a weight of some tens is much."""
_FIRST_STEPS = (0.3, 1.0, 5.0)
_BOUNDS = ((-3.0, 2.0), (-10.0, 10.0), (0.0, 60.0))


def fit_calibration(logits: Float32, likeness: Float32, classes: NDArray[np.intp], importance: Float32) -> Calibration:
    """The calibration of least loss over held-out (n, classes) logits and likeness, out-of-scope last.

    In-scope and out-of-scope questions are weighed to their assumed shares in traffic. The certainty that n questions
    can show is limited as by Platt 1999: each counts as right with probability 1 - 1 / (n + 2).
    """
    outside = classes == logits.shape[1] - 1
    if outside.all():
        return Calibration()
    share = importance.astype(np.float64)
    share[~outside] *= (1 - OUT_OF_SCOPE_SHARE) / share[~outside].sum()
    if outside.any():
        share[outside] *= OUT_OF_SCOPE_SHARE / share[outside].sum()
    seen = int((~outside).sum())
    doubt = 1 / (seen + 2)
    typical = np.array([_TYPICAL_LOG_TEMPERATURE, 0.0, 0.0])
    spread = np.array([_LOG_TEMPERATURE_SPREAD, _BIAS_SPREAD, _NEIGHBOUR_SPREAD])
    has_neighbours = bool(likeness.any())
    at = (np.arange(len(classes)), classes)

    def calibration(parameters: NDArray[np.float64]) -> Calibration:
        return Calibration(
            float(np.exp(parameters[0])),
            float(parameters[1]) if outside.any() else 0.0,
            float(parameters[2]) if has_neighbours else 0.0,
        )

    def loss(parameters: NDArray[np.float64]) -> float:
        right = calibration(parameters).probabilities(logits, likeness)[at].astype(np.float64)
        right = np.clip(right, 1e-7, 1 - 1e-7)
        surprise = (parameters - typical) / spread
        return float(-share @ ((1 - doubt) * np.log(right) + doubt * np.log1p(-right)) + surprise @ surprise / 2 / seen)

    # The default simplex hardly moves along a number that starts at 0, and would stop there.
    simplex = typical + np.vstack([np.zeros(3), np.diag(_FIRST_STEPS)])
    options: Any = {"xatol": 1e-3, "fatol": 1e-7, "initial_simplex": simplex}
    best = minimize(loss, typical, method="Nelder-Mead", bounds=_BOUNDS, options=options)
    return calibration(best.x)
