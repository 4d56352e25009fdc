"""Answers given before: a bounded, expiring cache of knowledge answers in the gateway's own memory.

Only what the knowledge base says on its own is kept, never an answer that rests on a conversation, a slot or a model.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import msgspec

from chatflow_runtime.answerers.answer import Answer
from chatflow_runtime.domain.routing import Intent


class CachedAnswer(msgspec.Struct, frozen=True):
    """An answer and the classification that led to it."""

    answer: Answer
    intent: Intent


class AnswerCache:
    """Least recently used out first; `entries` 0 keeps nothing. Scoped to a revision of models and knowledge."""

    def __init__(self, entries: int, ttl_s: float, monotonic_s: Callable[[], float]) -> None:
        self._entries = entries
        self._ttl_s = ttl_s
        self._monotonic_s = monotonic_s
        self._kept: OrderedDict[tuple[str, str], tuple[float, CachedAnswer]] = OrderedDict()

    def get(self, revision: str, text: str) -> CachedAnswer | None:
        """The answer to a normalised text, letter case aside."""
        key = (revision, text.casefold())
        found = self._kept.get(key)
        if found is None:
            return None
        expires_s, cached = found
        if expires_s <= self._monotonic_s():
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return cached

    def put(self, revision: str, text: str, cached: CachedAnswer) -> None:
        """Keep an answer."""
        if self._entries == 0:
            return
        key = (revision, text.casefold())
        self._kept[key] = (self._monotonic_s() + self._ttl_s, cached)
        self._kept.move_to_end(key)
        while len(self._kept) > self._entries:
            self._kept.popitem(last=False)
