"""Multinomial logistic regression by limited-memory BFGS in float32, on sparse and dense features together.

Used by `fit`. Nocedal & Wright, "Numerical Optimization", algorithms 7.4 (two loops) and 3.1 (backtracking). It stops
early: beyond some thirty steps the objective still falls, held-out loss does not (measured on both public data sets).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from chatflow_models.intent.features import Float32

_MEMORY = 6
_SUFFICIENT_DECREASE = 1e-4
_SMALLEST_STEP = 1e-6
_LEAST_CURVATURE = 1e-12


@dataclass(frozen=True, slots=True)
class Regression:
    """How strongly weights are held down, and when to stop."""

    inverse_strength: float = 10.0
    """C of the usual notation: the penalty is |W|^2 / (2 C), the bias is free."""
    max_steps: int = 40
    relative_decrease: float = 3e-5
    """Stops when a step lowers the objective by less than this share of it."""


@dataclass(frozen=True, slots=True)
class Design:
    """Features of n examples: (n, grams) sparse and (n, dimensions) dense."""

    sparse: csr_array
    dense: Float32

    def rows(self, chosen: NDArray[np.intp]) -> Design:
        """The features of some of the examples."""
        return Design(self.sparse[chosen], self.dense[chosen])

    @property
    def width(self) -> int:
        """Weights a class has, the bias included."""
        return int(self.sparse.shape[1] + self.dense.shape[1] + 1)

    def logits(self, weights: Float32) -> Float32:
        """(n, classes) from (width, classes): sparse weights first, then dense ones, the bias last."""
        grams = self.sparse.shape[1]
        logits = np.asarray(self.sparse @ weights[:grams])
        logits += self.dense @ weights[grams:-1]
        logits += weights[-1]
        return logits


class Objective:
    """Weighted mean cross-entropy plus penalty of weights, and its gradient."""

    def __init__(self, design: Design, classes: NDArray[np.intp], importance: Float32, inverse_strength: float) -> None:
        self._design, self._classes = design, classes
        self._transposed = design.sparse.T.tocsr()
        self._share = (importance / importance.sum()).astype(np.float32)
        self._penalty = np.float32(1 / (inverse_strength * float(importance.sum())))

    def __call__(self, weights: Float32) -> tuple[float, Float32]:
        """Value and (width, classes) gradient."""
        logits = self._design.logits(weights)
        logits -= logits.max(axis=1, keepdims=True)
        at = (np.arange(len(logits)), self._classes)
        right = logits[at]
        np.exp(logits, out=logits)
        total = logits.sum(axis=1)
        loss = float(self._share @ (np.log(total) - right))
        value = loss + float(self._penalty) / 2 * float(np.vdot(weights[:-1], weights[:-1]))
        logits *= (self._share / total)[:, None]
        logits[at] -= self._share
        gradient = np.empty_like(weights)
        grams = self._transposed.shape[0]
        gradient[:grams] = self._transposed @ logits
        gradient[grams:-1] = self._design.dense.T @ logits
        gradient[:-1] += self._penalty * weights[:-1]
        gradient[-1] = logits.sum(axis=0)
        return value, gradient


class _Curvature:
    """The last steps and how the gradient changed along them."""

    def __init__(self) -> None:
        self._pairs: list[tuple[Float32, Float32, float]] = []

    def add(self, step: Float32, change: Float32) -> None:
        product = float(np.vdot(step, change))
        if product > _LEAST_CURVATURE:
            self._pairs = [*self._pairs[1 - _MEMORY :], (step, change, 1 / product)]

    def descent(self, gradient: Float32) -> Float32:
        """The quasi-Newton direction; without any memory a step that moves the weights by about 1 in all."""
        direction = gradient.copy()
        factors: list[float] = []
        for step, change, inverse in reversed(self._pairs):
            factor = inverse * float(np.vdot(step, direction))
            factors.append(factor)
            direction -= np.float32(factor) * change
        if self._pairs:
            _, change, inverse = self._pairs[-1]
            direction /= np.float32(inverse * float(np.vdot(change, change)))
        else:
            direction /= np.float32(max(float(np.linalg.norm(gradient)), 1e-12))
        for (step, change, inverse), factor in zip(self._pairs, reversed(factors), strict=True):
            direction += np.float32(factor - inverse * float(np.vdot(change, direction))) * step
        return direction


def fit_weights(
    design: Design,
    classes: NDArray[np.intp],
    importance: Float32,
    class_count: int,
    regression: Regression,
    start: Float32 | None = None,
) -> Float32:
    """(width, class_count) weights for examples of given `classes` and `importance`, both (n,)."""
    objective = Objective(design, classes, importance, regression.inverse_strength)
    weights = np.zeros((design.width, class_count), dtype=np.float32) if start is None else start.copy()
    value, gradient = objective(weights)
    curvature = _Curvature()
    for _ in range(regression.max_steps):
        direction = curvature.descent(gradient)
        slope = float(np.vdot(gradient, direction))
        length = 1.0
        while True:
            moved = weights - np.float32(length) * direction
            new_value, new_gradient = objective(moved)
            if new_value <= value - _SUFFICIENT_DECREASE * length * slope or length < _SMALLEST_STEP:
                break
            length /= 2
        if new_value >= value:
            break
        curvature.add(moved - weights, new_gradient - gradient)
        has_settled = value - new_value < regression.relative_decrease * abs(value)
        weights, value, gradient = moved, new_value, new_gradient
        if has_settled:
            break
    return weights
