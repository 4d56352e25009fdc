"""Fits the numbers of a calibration on held-out logits and further evidence. Used by `fit`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from chatflow_models.intent.calibration import Calibration
from chatflow_models.intent.features import Float32

_USUAL_SHARE, _USUAL_WEIGHT = 0.1, 1000.0
"""What is assumed before any example is seen: a tenth out-of-scope, as if a thousand examples had said so."""
_TYPICAL_LOG_TEMPERATURE, _LOG_TEMPERATURE_SPREAD, _BIAS_SPREAD = -0.5, 0.5, 2.0
"""Where they usually lie: normal priors, which decide for a handful of questions and fade with hundreds."""
_WEIGHT_SPREAD = 10.0
"""Likeness lies in -1 to 1, so a weight of some tens is much."""
_LOG_TEMPERATURE_BOUNDS, _BIAS_BOUNDS, _WEIGHT_BOUNDS = (-3.0, 2.0), (-10.0, 10.0), (0.0, 60.0)


def out_of_scope_share(outside: int, examples: int) -> float:
    """Share of out-of-scope questions in traffic, 0 to 1, that is assumed from a flow's examples: the share `outside`
    of them has. More holds back more of them, at the price of in-scope accuracy where out-of-scope is counted among
    the answers: on CLINC150's validation split 0.01 gives .959 and 5 % of its out-of-scope questions above 0.85, 0.1
    gives .948 and 3 %."""
    return (outside + _USUAL_SHARE * _USUAL_WEIGHT) / (examples + _USUAL_WEIGHT)


def fit_calibration(
    logits: Float32,
    evidence: Sequence[Float32],
    classes: NDArray[np.intp],
    importance: Float32,
    outside_share: float,
) -> Calibration:
    """The calibration of least loss over held-out (n, classes) logits and evidence, out-of-scope last.

    Out-of-scope questions together get the weight `outside_share`, in-scope ones the rest. The certainty that n
    questions can show is limited as by Platt 1999: each counts as right with probability 1 - 1 / (n + 2).
    """
    outside = classes == logits.shape[1] - 1
    if outside.all():
        return Calibration(weights=(0.0,) * len(evidence))
    share = importance.astype(np.float64)
    share[~outside] *= (1 - outside_share) / share[~outside].sum()
    if outside.any():
        share[outside] *= outside_share / share[outside].sum()
    seen = int((~outside).sum())
    doubt = 1 / (seen + 2)
    kinds = len(evidence)
    typical = np.array([_TYPICAL_LOG_TEMPERATURE, 0.0, *[0.0] * kinds])
    spread = np.array([_LOG_TEMPERATURE_SPREAD, _BIAS_SPREAD, *[_WEIGHT_SPREAD] * kinds])
    at = (np.arange(len(classes)), classes)

    def calibration(parameters: NDArray[np.float64]) -> Calibration:
        bias = float(parameters[1]) if outside.any() else 0.0
        return Calibration(float(np.exp(parameters[0])), bias, tuple(map(float, parameters[2:])))

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        found = calibration(parameters)
        probabilities = found.probabilities(logits, evidence).astype(np.float64)
        right = np.clip(probabilities[at], 1e-7, 1 - 1e-7)
        surprise = (parameters - typical) / spread
        value = -share @ ((1 - doubt) * np.log(right) + doubt * np.log1p(-right)) + surprise @ surprise / 2 / seen
        return float(value), _slope(found, probabilities, right) + surprise / spread / seen

    def _slope(
        found: Calibration, probabilities: NDArray[np.float64], right: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Derivatives of the loss by each parameter."""
        # By the logits: of a row, d/dz_j = s (p_j - [j is the class]), s from both logarithms.
        scale = share * ((1 - doubt) - doubt * right / (1 - right))
        by_logit = probabilities * scale[:, None]
        by_logit[at] -= scale
        by_logit /= found.temperature
        by_kind = [float(np.vdot(by_logit, kind)) for kind in evidence]
        by_bias = float(by_logit[:, -1].sum()) if outside.any() else 0.0
        total = float(np.vdot(by_logit, logits)) + found.out_of_scope_bias * by_bias
        total += sum(weight * slope for weight, slope in zip(found.weights, by_kind, strict=True))
        return np.array([-total, by_bias, *by_kind])

    bounds = [_LOG_TEMPERATURE_BOUNDS, _BIAS_BOUNDS, *[_WEIGHT_BOUNDS] * kinds]
    return calibration(minimize(loss, typical, method="L-BFGS-B", jac=True, bounds=bounds).x)
