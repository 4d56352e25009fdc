"""The multiplexed connection to one state server, which keeps itself up. Used by `link`, `cluster` and `wakeups`.

All callers share one socket. While it is down, calls fail at once with StateUnavailable; it comes back by itself, and
with sentinels at the primary of the day.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog

from chatflow_runtime.errors import StateError, StateUnavailable
from chatflow_runtime.state.durability import Durability
from chatflow_runtime.state.endpoint import Site
from chatflow_runtime.state.scripts import Script
from chatflow_runtime.state.url import site_of
from chatflow_runtime.state.wire import Argument, Push, ScriptMissing, Wire, seen

_log = structlog.get_logger(__name__)

_DOUBT_S = 0.5
"""Whether the server is still the right one is asked no more often."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a connection waits. All in seconds."""

    timeout_s: float = 3.0
    """For a reply, and for a connection to be made; a reply is missed after 1 to 1.5 times this."""
    keepalive_s: float = 5.0
    """An idle connection is probed after this."""
    first_retry_s: float = 0.05
    last_retry_s: float = 2.0
    """Attempts to connect are this far apart at most; each pause is drawn from its upper half."""

    def pause_s(self, failures: int, jitter: float) -> float:
        """The pause after so many failures in a row; `jitter` lies in 0 to 1."""
        whole_s = min(self.last_retry_s, self.first_retry_s * 2.0 ** min(failures, 30))
        return whole_s * (0.5 + jitter / 2)


class Connection:
    """One socket for all callers of a process. `scripts` are loaded whenever it is made; with `on_push` it speaks RESP3
    and subscribes to `patterns`, again after every loss. With a `durability` replies wait for replicas. The URL of a
    cluster is that of any live node of it."""

    def __init__(
        self,
        where: str | Site,
        *,
        name: str = "chatflow",
        scripts: Sequence[Script] = (),
        on_push: Push | None = None,
        patterns: Sequence[bytes] = (),
        on_lost: Callable[[], None] | None = None,
        patience: Patience | None = None,
        jitter: Callable[[], float] = random.random,
        durability: Durability | None = None,
    ) -> None:
        self._durability = durability
        self._site: Site = site_of(where) if isinstance(where, str) else where
        self._name = name
        self._scripts = scripts
        self._on_push = on_push
        self._patterns = patterns
        self._told_of_loss = on_lost
        self._patience = patience or Patience()
        self._jitter = jitter
        self._wire: Wire | None = None
        self._reason = "not connected yet"
        self._connected = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._first: asyncio.Future[None] | None = None

    def __str__(self) -> str:
        return str(self._site)

    async def open(self) -> None:
        """Connect. StateUnavailable after the first failure, but attempts go on until `close`."""
        if self._first is None:
            self._first = asyncio.get_running_loop().create_future()
            self._first.add_done_callback(seen)
            self._keeper = asyncio.create_task(self._keep(self._first), name=f"state connection {self._name}")
        if not self.is_up:
            await asyncio.shield(self._first)

    async def close(self) -> None:
        """Close the socket and stop connecting; calls under way fail."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        first, self._first = self._first, None
        if first is not None and not first.done():
            first.set_exception(StateUnavailable(f"{self}: closed"))
        wire = self._wire
        if wire is not None:
            wire.abort("closed")
            await wire.lost

    async def connected(self) -> None:
        """Return once the connection is up, at once when it is."""
        await self._connected.wait()

    @property
    def is_up(self) -> bool:
        """Whether a call would be sent."""
        return self._wire is not None

    @property
    def is_idle(self) -> bool:
        """Whether no call is under way."""
        return self._wire is None or self._wire.is_idle

    @property
    def writes(self) -> int:
        """How many times the present socket was written to."""
        return 0 if self._wire is None else self._wire.writes

    def call(self, *args: Argument) -> asyncio.Future[Any]:
        """The future reply to one command; StateUnavailable or StateError comes with it, or at once when disconnected.
        Calls of one loop tick leave in one write, in order."""
        if self._wire is None:
            raise StateUnavailable(f"{self}: {self._reason}; try again")
        reply = self._wire.send(args)
        return reply if self._durability is None else self._durability.acknowledged(self._wire, reply)

    async def run(self, script: Script, *args: Argument) -> Any:
        """The reply of a script, given the number of its keys, the keys and the arguments. A script that the server has
        forgotten is sent again, once."""
        try:
            return await self.call(b"EVALSHA", script.sha, *args)
        except ScriptMissing:
            return await self.call(b"EVAL", script.source, *args)

    async def run_then(
        self, script: Script, args: Sequence[Argument], following: Sequence[Argument]
    ) -> tuple[Any, Any]:
        """The replies of a script and of a command right behind it, in one round trip."""
        for verb, which in ((b"EVALSHA", script.sha), (b"EVAL", script.source)):
            first, second = self.call(verb, which, *args), self.call(*following)
            second.add_done_callback(seen)
            try:
                return await first, await second
            except ScriptMissing:
                second.cancel()
        raise StateError(f"{self} takes EVAL for EVALSHA; use Redis 6.2 or later, or Valkey")

    async def _keep(self, first: asyncio.Future[None]) -> None:
        failures = 0
        while True:
            try:
                wire = await self._connect()
            except (OSError, StateError) as error:
                self._reason = f"cannot connect: {str(error) or type(error).__name__}"
                if failures == 0:
                    _log.warning("state.unreachable", server=str(self), connection=self._name, reason=self._reason)
                if not first.done():
                    first.set_exception(StateUnavailable(f"{self}: {self._reason}"))
                await asyncio.sleep(self._patience.pause_s(failures, self._jitter()))
                failures += 1
                continue
            failures = 0
            self._wire = wire
            wire.lost.add_done_callback(self._on_lost)
            self._connected.set()
            _log.info("state.connected", server=str(wire), connection=self._name)
            if not first.done():
                first.set_result(None)
            await self._stay(wire)
            _log.warning("state.lost", server=str(wire), connection=self._name, reason=self._reason)

    async def _stay(self, wire: Wire) -> None:
        """Return when the socket is gone. It is given up when the server is no longer the one that is wanted."""
        while not wire.lost.done():
            with suppress(TimeoutError):
                async with asyncio.timeout(self._patience.keepalive_s):
                    await wire.doubt.wait()
            wire.doubt.clear()
            if not wire.lost.done() and await self._site.has_moved(wire):
                wire.abort("another server has taken its place")
            await asyncio.wait((wire.lost,), timeout=_DOUBT_S)

    def _on_lost(self, reason: asyncio.Future[str]) -> None:
        self._reason = reason.result()
        self._wire = None
        self._connected.clear()
        if self._told_of_loss is not None:
            self._told_of_loss()

    async def _connect(self) -> Wire:
        patience = self._patience
        endpoint = await self._site.find()
        wire: Wire | None = None
        try:
            async with asyncio.timeout(patience.timeout_s):
                wire = await endpoint.connect(
                    lambda: Wire(str(endpoint), patience.timeout_s, patience.keepalive_s, self._on_push)
                )
                greeting = endpoint.greeting(self._name, is_push=self._on_push is not None)
                loads = [("SCRIPT", "LOAD", script.source) for script in self._scripts]
                await asyncio.gather(*(wire.send(command) for command in (*greeting, *loads)))
                await self._site.check(wire)
        except BaseException:
            if wire is not None:
                wire.abort("the connection could not be set up")
            raise
        if self._patterns:
            wire.subscribe(*self._patterns)
        return wire
