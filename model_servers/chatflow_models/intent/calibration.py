"""From logits to calibrated probabilities, and how well calibrated they are. Used by scoring and by training.

Temperature scaling after Guo et al. 2017 ("On Calibration of Modern Neural Networks"), with a bias of its own for the
out-of-scope class, since the share of such questions among the examples says nothing about their share in traffic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .features import Float32

ECE_BINS = 15


def softmax(logits: Float32) -> Float32:
    """Rows of probabilities from rows of logits."""
    shifted: Float32 = logits - logits.max(axis=1, keepdims=True)
    np.exp(shifted, out=shifted)
    shifted /= shifted.sum(axis=1, keepdims=True)
    return shifted


@dataclass(frozen=True, slots=True)
class Calibration:
    """The bias is added to the last column of logits, out-of-scope; every further kind of evidence for the classes,
    times its weight, to all; then they are divided by the temperature."""

    temperature: float = 1.0
    out_of_scope_bias: float = 0.0
    weights: tuple[float, ...] = ()
    """One for each kind of evidence."""

    def scale(self, weights: Float32) -> Float32:
        """Weights, or a column of a linear model, such that its logits come out divided by the temperature."""
        return np.asarray(weights / np.float32(self.temperature), dtype=np.float32)

    def scale_bias(self, bias: Float32) -> Float32:
        """The (classes,) bias of a linear model whose logits come out calibrated."""
        shifted = bias.copy()
        shifted[..., -1] += np.float32(self.out_of_scope_bias)
        return self.scale(shifted)

    def probabilities(self, logits: Float32, evidence: Sequence[Float32]) -> Float32:
        """Rows of calibrated probabilities from (n, classes) logits and, alike, each kind of evidence."""
        total = logits.copy()
        for weight, kind in zip(self.weights, evidence, strict=True):
            total += np.float32(weight) * kind
        return softmax(self.scale_bias(total))


def expected_calibration_error(
    confidence: NDArray[np.floating], is_right: NDArray[np.bool_], bins: int = ECE_BINS
) -> float:
    """Mean distance of confidence and accuracy over equal bins of confidence, weighted by their size."""
    if not len(confidence):
        return 0.0
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gap = np.bincount(bin_of, weights=confidence - is_right, minlength=bins)
    return float(np.abs(gap).sum() / len(confidence))
