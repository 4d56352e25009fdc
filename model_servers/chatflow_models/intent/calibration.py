"""From logits to calibrated probabilities, and how well calibrated they are. Used by scoring and by training.

Temperature scaling after Guo et al. 2017 ("On Calibration of Modern Neural Networks"), with a bias of its own for the
out-of-scope class, since the share of such questions among the examples says nothing about their share in traffic.
"""

from __future__ import annotations

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
    """The bias is added to the last column of logits, out-of-scope, and the likeness to each class's examples times
    its weight to all; then they are divided by the temperature."""

    temperature: float = 1.0
    out_of_scope_bias: float = 0.0
    neighbour_weight: float = 0.0

    def scale(self, weights: Float32) -> Float32:
        """Weights, or a column of a linear model, such that its logits come out divided by the temperature."""
        return np.asarray(weights / np.float32(self.temperature), dtype=np.float32)

    def scale_bias(self, bias: Float32) -> Float32:
        """The (classes,) bias of a linear model whose logits come out calibrated."""
        shifted = bias.copy()
        shifted[..., -1] += np.float32(self.out_of_scope_bias)
        return self.scale(shifted)

    def probabilities(self, logits: Float32, likeness: Float32) -> Float32:
        """Rows of calibrated probabilities from (n, classes) logits and likeness."""
        return softmax(self.scale_bias(logits + np.float32(self.neighbour_weight) * likeness))


def expected_calibration_error(
    confidence: NDArray[np.floating], is_right: NDArray[np.bool_], bins: int = ECE_BINS
) -> float:
    """Mean distance of confidence and accuracy over equal bins of confidence, weighted by their size."""
    if not len(confidence):
        return 0.0
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gap = np.bincount(bin_of, weights=confidence - is_right, minlength=bins)
    return float(np.abs(gap).sum() / len(confidence))
