"""The one score of a passage: how likely it answers the question, from all that is known of the two. `index` calls it.

The weights were fitted on the training side of the two example flows: 1,028 question variants, each held out of the
index that it was looked up in, and the out-of-scope training lines; the examples' labelled test files had no part. The
proportions come from a conditional logit over all entries, scale and base from a logistic regression on whether the
best entry is right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Weights:
    """What each similarity, itself 0 to 1, adds to the logit of the score."""

    entry: float
    """BM25F of the whole entry."""
    variant: float
    """Cosine with the best question variant, in terms."""
    question: float
    """Cosine with the nearest question variant, in sentence vectors."""
    questions: float
    """Cosine with the mean of all variants, in sentence vectors."""
    answer: float
    """Cosine with title and text, in sentence vectors."""
    base: float


LIGHT = Weights(entry=5.7, variant=0.8, question=0.0, questions=0.0, answer=0.0, base=-2.6)
HYBRID = Weights(entry=3.7, variant=0.0, question=1.9, questions=2.9, answer=2.3, base=-4.0)

SAME_INTENT = 1.0
"""Added to the logit of a passage whose intent is the one acted on."""
OTHER_INTENT = -2.0
"""Added when the passage has another one. An intent is acted on only when it is hardly ever wrong, so this may weigh a
lot."""


def score(logit: float) -> float:
    """0 to 1."""
    return 1.0 / (1.0 + math.exp(-logit))
