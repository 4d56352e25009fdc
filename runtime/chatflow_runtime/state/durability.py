"""Holds replies of a connection back until replicas have what it wrote, by one WAIT for all calls of a loop tick. Used
by `connection`, on the one that carries what has to last.

Replication is asynchronous: a primary that is lost takes along what no replica had. WAIT blocks the connection on the
server meanwhile, so reads go by another one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog

from chatflow_runtime.errors import StateError
from chatflow_runtime.state.wire import Wire, seen

_log = structlog.get_logger(__name__)

FORBEARANCE_S = 1.0
"""After replicas did not answer in time, nothing is held back for this long: a flow without replicas goes on."""


class Durability:
    """Of one connection. `fell_short` is told of every tick whose calls too few replicas have confirmed in time."""

    def __init__(self, replicas: int, timeout_ms: int, fell_short: Callable[[], None]) -> None:
        self._replicas = replicas
        self._timeout_ms = timeout_ms
        self._fell_short = fell_short
        self._tick: asyncio.Future[None] | None = None
        self._resumes_s = 0.0
        self._is_short = False

    def acknowledged(self, wire: Wire, reply: asyncio.Future[Any]) -> asyncio.Future[Any]:
        """The same reply, once replicas have what the call wrote; at once while too few of them answer."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._resumes_s:
            return reply
        if self._tick is None:
            self._tick = loop.create_future()
            # It leaves right behind the calls of this tick.
            loop.call_soon(self._close_tick, wire, self._tick)
        return asyncio.ensure_future(_both(reply, self._tick))

    def _close_tick(self, wire: Wire, tick: asyncio.Future[None]) -> None:
        self._tick = None
        tick.add_done_callback(seen)
        try:
            confirmed = wire.send(("WAIT", self._replicas, self._timeout_ms))
        except StateError as error:
            tick.set_exception(error)
            return
        confirmed.add_done_callback(lambda count: self._confirmed(count, tick))

    def _confirmed(self, count: asyncio.Future[Any], tick: asyncio.Future[None]) -> None:
        error = count.exception()
        if error is not None:
            # The server was lost meanwhile: whether its successor has the calls, nobody knows.
            tick.set_exception(error)
            return
        is_short = count.result() < self._replicas
        if is_short:
            self._resumes_s = asyncio.get_running_loop().time() + FORBEARANCE_S
            self._fell_short()
        if is_short is not self._is_short:
            self._is_short = is_short
            _log.warning("state.replicas_behind" if is_short else "state.replicas_back", wanted=self._replicas)
        tick.set_result(None)


async def _both(reply: asyncio.Future[Any], tick: asyncio.Future[None]) -> Any:
    """The reply, after both. An error of the reply is told at once."""
    result = await reply
    await asyncio.shield(tick)
    return result
