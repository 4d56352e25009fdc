"""The Retriever port over a knowledge index in this process. `bootstrap` makes one; the reload loop swaps its index."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import structlog

from chatflow_runtime.adapters.knowledge.index import KnowledgeIndex
from chatflow_runtime.ports import Passage, Query

log = structlog.get_logger()


class _Search(msgspec.Struct, frozen=True):
    query: Query
    top_k: int
    found: asyncio.Future[list[Passage]]


class KnowledgeRetriever:
    """Finds knowledge. Searches that begin in the same tick of the event loop are answered together, which shares one
    pass over the vectors; those of a large index run in a thread."""

    def __init__(self, index: KnowledgeIndex) -> None:
        self._index = index
        self._has_warned = False
        self._waiting: list[_Search] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def revision(self) -> str:
        """The index's version: a hash of its content."""
        return self._index.version

    def swap(self, index: KnowledgeIndex) -> None:
        """Uses another index from now on; searches under way finish on the old one."""
        if self._waiting:
            self._flush()
        self._index = index
        self._has_warned = False

    async def search(self, query: Query, top_k: int) -> Sequence[Passage]:
        """The best passages, best first; empty when nothing matches at all."""
        self._check(query)
        loop = asyncio.get_running_loop()
        search = _Search(query, top_k, loop.create_future())
        if not self._waiting:
            loop.call_soon(self._flush)
        self._waiting.append(search)
        return await search.found

    def _check(self, query: Query) -> None:
        """Says once for each index that embeddings and index do not go together. It happens for a moment while both
        are exchanged; if it lasts, the index was built with another encoder."""
        wanted = self._index.dimension
        if self._has_warned or query.embedding is None or wanted in (None, len(query.embedding)):
            return
        self._has_warned = True
        log.warning("embedding_ignored", length=len(query.embedding), index_length=wanted, index=self._index.version)

    def _flush(self) -> None:
        batch = [search for search in self._waiting if not search.found.done()]
        self._waiting = []
        if not batch:
            return
        if self._index.is_heavy:
            task = asyncio.ensure_future(_in_thread(self._index, batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            _answer(self._index, batch)


async def _in_thread(index: KnowledgeIndex, batch: list[_Search]) -> None:
    loop = asyncio.get_running_loop()
    outcomes = await loop.run_in_executor(None, _outcomes, index, batch)
    _deliver(batch, outcomes)


def _answer(index: KnowledgeIndex, batch: list[_Search]) -> None:
    _deliver(batch, _outcomes(index, batch))


def _outcomes(index: KnowledgeIndex, batch: list[_Search]) -> list[list[Passage]] | Exception:
    try:
        return index.search([search.query for search in batch], max(search.top_k for search in batch))
    except Exception as error:  # noqa: BLE001  # Each waiting caller gets it.
        return error


def _deliver(batch: list[_Search], outcomes: list[list[Passage]] | Exception) -> None:
    for number, search in enumerate(batch):
        if search.found.done():
            continue
        if isinstance(outcomes, Exception):
            search.found.set_exception(outcomes)
        else:
            search.found.set_result(outcomes[number][: search.top_k])
