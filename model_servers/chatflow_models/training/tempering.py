"""Fits the two numbers of a calibration on held-out logits. Used by `fit`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from chatflow_models.intent.calibration import Calibration
from chatflow_models.intent.features import Float32

OUT_OF_SCOPE_SHARE = 0.01
"""Weight of out-of-scope questions in the calibration, 0 to 1; their share among the examples means nothing. Chosen on
CLINC150's validation split: 0.05 costs half a point of in-scope accuracy there and holds back no more of its
out-of-scope questions at the default threshold."""
_BIAS_LIMIT = 10.0
_TEMPERATURE_LIMITS = (0.05, 10.0)


def fit_calibration(logits: Float32, classes: NDArray[np.intp], importance: Float32) -> Calibration:
    """The calibration of least loss over held-out (n, classes) logits, out-of-scope last.

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
    doubt = 1 / (int((~outside).sum()) + 2)
    at = (np.arange(len(classes)), classes)

    def calibration(parameters: NDArray[np.float64]) -> Calibration:
        bias = float(np.clip(parameters[1], -_BIAS_LIMIT, _BIAS_LIMIT)) if outside.any() else 0.0
        return Calibration(float(np.clip(np.exp(parameters[0]), *_TEMPERATURE_LIMITS)), bias)

    def loss(parameters: NDArray[np.float64]) -> float:
        right = calibration(parameters).probabilities(logits)[at].astype(np.float64)
        right = np.clip(right, 1e-7, 1 - 1e-7)
        return float(-share @ ((1 - doubt) * np.log(right) + doubt * np.log1p(-right)))

    best = minimize(loss, np.array([-0.5, 0.0]), method="Nelder-Mead", options={"xatol": 1e-3, "fatol": 1e-6})
    return calibration(best.x)
