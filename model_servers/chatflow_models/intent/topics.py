"""Topics: the questions with one answer, as classes finer than intents. Used by scoring and by training.

An intent such as "returns" is many questions that have little in common. A second linear model knows them apart, and
the probabilities of an intent's topics add up to evidence for the intent.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .features import Float32

_LEAST = np.float32(1e-6)


def evidence(logits: Float32, starts: NDArray[np.intp]) -> Float32:
    """(n, classes) logarithms of the classes' probabilities, from (n, topics) logits with the topics sorted by class;
    `starts` has the first topic of each class, and every class has one."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    np.exp(shifted, out=shifted)
    sums = np.add.reduceat(shifted, starts, axis=1)
    sums /= sums.sum(axis=1, keepdims=True)
    sums += _LEAST
    return np.asarray(np.log(sums), dtype=np.float32)
