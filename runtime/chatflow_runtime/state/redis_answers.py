"""Knowledge answers that the gateways of a flow share, on Redis or Valkey: answerers.cached.SharedAnswers.

What is kept is what the knowledge base says on its own, under its text and the versions of model and knowledge; nothing
of a user is in it. Keys spread over a cluster, and go by themselves.
"""

from __future__ import annotations

import asyncio
from typing import Any

from chatflow_api import names

from chatflow_runtime.answerers.cached import CachedAnswer
from chatflow_runtime.errors import StateError
from chatflow_runtime.state.codec import Codec
from chatflow_runtime.state.link import Link

ANSWERS = Codec(CachedAnswer)


class RedisAnswers:
    """The shared answers of one flow, each for `ttl_s`."""

    def __init__(self, link: Link, flow: str, ttl_s: float) -> None:
        self._link = link
        self._flow = flow
        self._ttl_ms = round(ttl_s * 1000)
        self._writing: set[asyncio.Future[Any]] = set()

    async def read(self, revision: str, text: str) -> CachedAnswer | None:
        """The answer to a text; None where there is none, or it cannot be had just now."""
        try:
            found = await self._link.call("GET", names.answer_key(self._flow, revision, text))
            return None if found is None else ANSWERS.decode(found)
        except StateError:
            return None

    def write(self, revision: str, text: str, cached: CachedAnswer) -> None:
        """Keep an answer, some time soon; one that is lost is made again."""
        key = names.answer_key(self._flow, revision, text)
        task = asyncio.ensure_future(self._write(key, ANSWERS.encode(cached)))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _write(self, key: str, value: bytes) -> None:
        try:
            await self._link.call("SET", key, value, "PX", self._ttl_ms)
        except StateError:
            return
