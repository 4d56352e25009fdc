"""The one score of a passage: how likely it answers the question, from all that is known of the two. `index` calls it.

The weights were fitted on questions that customers could ask the two example flows (190 written for it, and their
out-of-scope training lines), not on the examples' labelled test files: the proportions by a conditional logit over all
entries, then scale and base by a logistic regression on whether the best entry is right.
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
    """Cosine with the best question variant, in sentence vectors."""
    answer: float
    """Cosine with title and text, in sentence vectors."""
    base: float


LIGHT = Weights(entry=5.3, variant=0.9, question=0.0, answer=0.0, base=-2.4)
HYBRID = Weights(entry=4.5, variant=0.6, question=4.3, answer=3.1, base=-4.65)

SAME_INTENT = 1.0
"""Added to the logit of a passage whose intent is the one acted on."""
OTHER_INTENT = -2.0
"""Added when the passage has another one. Intents acted on are right 97 times in 100, so this may weigh a lot."""


def score(logit: float) -> float:
    """0 to 1."""
    return 1.0 / (1.0 + math.exp(-logit))
