"""The one score of a passage: how likely it answers the question, from all that is known of the two. `index` calls it.

The weights come from `python -m e2e.load.retrieval_weights`: they are fitted on the training side of the two example
flows, each question held out of the index that it was looked up in and of the intent model that classified it. Labelled
questions had no part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Weights:
    """What each similarity, itself 0 to 1, adds to the logit of the score."""

    spaced: float
    """BM25F of the whole entry, for a question in words."""
    unspaced: float
    """The same for a question in Chinese, Japanese or Korean, whose terms are characters and pairs of them."""
    question: float
    """Cosine with the nearest question variant, in sentence vectors."""
    questions: float
    """Cosine with the mean of all variants, in sentence vectors."""
    answer: float
    """Cosine with title and text, in sentence vectors."""
    intent: float
    """Logarithm of the probability of the entry's intent."""
    base: float


LIGHT = Weights(spaced=6.76, unspaced=9.47, question=0.0, questions=0.0, answer=0.0, intent=0.30, base=-2.90)
HYBRID = Weights(spaced=4.19, unspaced=6.44, question=1.92, questions=2.83, answer=2.10, intent=0.19, base=-4.06)

_LEAST = 0.003
"""Probability of an intent that is not among the alternatives of a classification, and the least of any."""
_UNLIKELY = math.log(_LEAST)
_UNKNOWN = math.log(0.2)
"""Stands for an entry without an intent."""


def agreement(intents: Sequence[tuple[str, float]], places: Mapping[str, int]) -> list[float]:
    """What the likely intents of a question, with their probabilities, say of entries by their intent: a logarithm
    for each place of an intent, and in the last place that of entries without one. All 0 for no intents."""
    if not intents:
        return [0.0] * (len(places) + 1)
    found = [_UNLIKELY] * len(places)
    for name, probability in intents:
        place = places.get(name)
        if place is not None and probability > _LEAST:
            found[place] = math.log(probability)
    found.append(_UNKNOWN)
    return found


def score(logit: float) -> float:
    """0 to 1."""
    return 1.0 / (1.0 + math.exp(-logit))
