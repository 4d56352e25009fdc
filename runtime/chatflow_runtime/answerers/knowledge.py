"""Answers from the knowledge base: the best passage, with the ones that say as much cited beside it."""

from __future__ import annotations

from collections.abc import Sequence

from chatflow_runtime.answerers.answer import Answer
from chatflow_runtime.domain.reply import Origin
from chatflow_runtime.ports import Passage

RELATED = 0.9
"""A further passage is cited when its score reaches this share of the best one's."""


def answer(passages: Sequence[Passage], min_score: float) -> Answer | None:
    """The assembled answer, or None when no passage reaches `min_score` (0 to 1)."""
    if not passages or passages[0].score < min_score:
        return None
    best = passages[0]
    cited = [passage for passage in passages if passage.score >= max(min_score, RELATED * best.score)]
    return Answer(
        text=best.text.strip(),
        origin=Origin.KNOWLEDGE,
        citations=tuple(passage.citation() for passage in cited),
    )
