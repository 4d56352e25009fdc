"""The streams that are open: counted, and ended together when the gateway drains. Used by the events route and the
WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from chatflow_runtime.metrics import Connection, Metrics
from chatflow_runtime.web.problems import Draining


class Drained(Exception):
    """The gateway stops: end the stream, so that the client comes back elsewhere."""


class Streams:
    """Open streams of one gateway."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._tasks: set[asyncio.Task[object]] = set()
        self.is_draining = False
        """Whether the gateway is about to stop."""

    @contextmanager
    def open(self, kind: Connection) -> Iterator[None]:
        """Count the running task as a stream. Raises Draining at once, or Drained where it waits when the end comes."""
        if self.is_draining:
            raise Draining("this gateway is about to stop; connect again")
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a stream is opened inside a task")
        self._tasks.add(task)
        self._metrics.opened(kind)
        try:
            yield
        except asyncio.CancelledError:
            # Only a cancellation of our own is turned into an ordinary end; others pass.
            if task in self._tasks:
                raise
            task.uncancel()
            raise Drained from None
        finally:
            self._tasks.discard(task)
            self._metrics.closed(kind)

    def drain(self) -> None:
        """End all open streams and refuse new ones."""
        self.is_draining = True
        tasks = list(self._tasks)
        self._tasks.clear()
        for task in tasks:
            task.cancel()
