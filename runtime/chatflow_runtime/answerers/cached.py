"""Answers given before: a bounded, expiring cache of knowledge answers in the gateway's own memory, and behind it one
that the flow's gateways share.

Only what the knowledge base says on its own is kept, never an answer that rests on a conversation, a slot or a model.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

import msgspec

from chatflow_runtime.answerers.answer import Answer
from chatflow_runtime.domain.routing import Intent


class CachedAnswer(msgspec.Struct, frozen=True):
    """An answer and the classification that led to it."""

    answer: Answer
    intent: Intent


class SharedAnswers(Protocol):
    """`state.redis_answers`. What it cannot read or write is as if it were not there."""

    async def read(self, revision: str, text: str) -> CachedAnswer | None:
        """The answer to a text, letter case folded."""

    def write(self, revision: str, text: str, cached: CachedAnswer) -> None:
        """Keep an answer, without waiting for it."""


class AnswerCache:
    """Least recently used out first; `entries` 0 keeps nothing. Scoped to a revision of models and knowledge."""

    def __init__(
        self, entries: int, ttl_s: float, monotonic_s: Callable[[], float], shared: SharedAnswers | None = None
    ) -> None:
        self._shared = shared
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

    async def find(self, revision: str, text: str) -> CachedAnswer | None:
        """The answer that another gateway has given, where they share them: for what this one does not know."""
        if self._shared is None:
            return None
        found = await self._shared.read(revision, text.casefold())
        if found is not None:
            self._keep((revision, text.casefold()), found)
        return found

    def put(self, revision: str, text: str, cached: CachedAnswer) -> None:
        """Keep an answer, here and for the others."""
        if self._entries == 0:
            return
        self._keep((revision, text.casefold()), cached)
        if self._shared is not None:
            self._shared.write(revision, text.casefold(), cached)

    def _keep(self, key: tuple[str, str], cached: CachedAnswer) -> None:
        self._kept[key] = (self._monotonic_s() + self._ttl_s, cached)
        self._kept.move_to_end(key)
        while len(self._kept) > self._entries:
            self._kept.popitem(last=False)
