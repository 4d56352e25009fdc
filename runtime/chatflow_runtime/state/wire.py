"""One socket to the state server: commands out once per loop tick, replies matched in order. Used by `connection`.

No task, lock or timer per call: a call appends its bytes and a future; the first of a loop tick schedules the one
write. A cancelled call keeps its place, so that its reply is dropped and the ones behind it stay matched.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import hiredis

from chatflow_runtime.errors import StateError, StateUnavailable

Argument = str | bytes | int
Push = Callable[[list[Any]], None]

_pack = cast("Callable[[tuple[Argument, ...]], bytes]", hiredis.pack_command)
_MORE = object()
_UNAVAILABLE = frozenset(
    (
        *("BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "NOAUTH", "NOPERM", "NOREPLICAS", "OOM"),
        *("READONLY", "TRYAGAIN", "WRONGPASS"),
    )
)
"""Error codes that tell of the server's condition, not of the command."""
_NOT_THE_PRIMARY = frozenset(("READONLY", "MASTERDOWN"))
_CODE = re.compile(r"(?:ERR Error running script .*?-)?([A-Z]+)")
"""Before Redis 7 an error inside a script comes wrapped into another."""
_REDIRECTION = re.compile(r"(MOVED|ASK) (\d+) (.*):(\d+)")


class ScriptMissing(StateError):
    """The server does not know a script (any longer)."""


class SlotMigrating(StateUnavailable):
    """A cluster's slot is on its way from node to node, and the keys of the command are on both."""


class Redirection(StateError):
    """Another node of a cluster serves the slot: from now on, or for this command alone (`is_once`)."""

    def __init__(self, message: str, slot: int, host: str, port: int, *, is_once: bool) -> None:
        super().__init__(message)
        self.slot = slot
        self.host = host
        self.port = port
        self.is_once = is_once


class Wire(asyncio.Protocol):
    """A connected socket. Replies are bytes, int, None or lists of them."""

    def __init__(self, where: str, timeout_s: float, keepalive_s: float, on_push: Push | None) -> None:
        self._where = where
        self._timeout_s = timeout_s
        self._keepalive_s = keepalive_s
        self._on_push = on_push
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(notEnoughData=_MORE, replyError=self._translated)
        self._pending: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._out: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._reason: str | None = None
        self._watchdog: asyncio.TimerHandle | None = None
        self._last_call_s = self._loop.time()
        self._late: tuple[asyncio.Future[Any], float] | None = None
        self.lost: asyncio.Future[str] = self._loop.create_future()
        """Resolves with the reason when the socket is gone."""
        self.doubt = asyncio.Event()
        """Set when it is gone, lacks replicas or is slow to answer: another server may have taken its place."""
        self.writes = 0

    def __str__(self) -> str:
        return self._where

    @property
    def is_idle(self) -> bool:
        """Whether no reply is awaited."""
        return not self._pending

    def send(self, args: tuple[Argument, ...]) -> asyncio.Future[Any]:
        """The future reply to a command; StateUnavailable at once when the socket is gone."""
        if self._transport is None:
            raise StateUnavailable(f"{self._where}: {self._reason or 'not connected'}")
        future = self._loop.create_future()
        self._last_call_s = self._loop.time()
        self._pending.append((future, self._last_call_s))
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(_pack(args))
        return future

    def subscribe(self, *patterns: bytes) -> None:
        """PSUBSCRIBE; the server answers with pushes only."""
        if self._transport is not None:
            self._transport.write(_pack(("PSUBSCRIBE", *patterns)))

    def abort(self, reason: str) -> None:
        """Drop the socket; every call under way fails with the reason."""
        self._reason = self._reason or reason
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio's callback."""
        self._transport = cast("asyncio.Transport", transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio's callback: fails what is under way."""
        self._transport = None
        self._reason = self._reason or (f"the connection broke: {exc}" if exc else "the server closed the connection")
        if self._watchdog is not None:
            self._watchdog.cancel()
        self.lost.set_result(self._reason)
        self.doubt.set()
        while self._pending:
            future, _ = self._pending.popleft()
            if not future.done():
                future.set_exception(StateUnavailable(f"{self._where}: {self._reason}; try again"))
        self._out.clear()

    def data_received(self, data: bytes) -> None:
        """asyncio's callback: hands replies to their futures, in order."""
        reader, pending = self._reader, self._pending
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not _MORE:
                if type(reply) is hiredis.PushNotification:
                    if self._on_push is not None:
                        self._on_push(reply)
                    continue
                future, _ = pending.popleft()
                if future.done():
                    continue
                if isinstance(reply, StateError):
                    future.set_exception(reply)
                else:
                    future.set_result(reply)
        except (hiredis.ProtocolError, IndexError) as error:
            self.abort(f"the server broke the protocol: {error}")

    def _flush(self) -> None:
        if self._transport is not None and self._out:
            self.writes += 1
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def _watch(self) -> None:
        """The one timer: the oldest call tells whether the server is late, since replies come in order. It has to be
        found late twice, because after a stall of this process timers may run before what has arrived is read."""
        now_s = self._loop.time()
        oldest = self._pending[0] if self._pending else None
        if oldest is not None and now_s - oldest[1] > self._timeout_s / 4:
            # A primary that hands over answers no writes.
            self.doubt.set()
        if oldest is not None and now_s - oldest[1] > self._timeout_s:
            if oldest is self._late:
                self.abort(f"no answer within {self._timeout_s:g} s")
                return
            self._late = oldest
        if not self._pending and now_s - self._last_call_s > self._keepalive_s:
            self.send(("PING",)).add_done_callback(seen)
        self._watchdog = self._loop.call_later(self._timeout_s / 4, self._watch)

    def peer(self) -> tuple[str, int] | None:
        """Numerical address and port of the other end; None for a Unix socket, or when it is gone."""
        peer = self._transport and self._transport.get_extra_info("peername")
        return (str(peer[0]), int(peer[1])) if peer else None

    def _translated(self, message: str) -> StateError:
        code = found[1] if (found := _CODE.match(message)) else ""
        if code == "NOSCRIPT":
            return ScriptMissing(message)
        if moved := _REDIRECTION.match(message):
            hint = f"{self._where} is a node of a cluster ({message}); write its URL as redis+cluster://"
            kind, slot, host, port = moved.groups()
            # A node that does not know its own address leaves it out.
            here = (self.peer() or ("",))[0]
            return Redirection(hint, int(slot), host or here, int(port), is_once=kind == "ASK")
        if code not in _UNAVAILABLE:
            return StateError(f"{self._where} refuses a command: {message}")
        if code in _NOT_THE_PRIMARY:
            # A new connection finds the present primary behind the same name, or by its sentinels.
            self._loop.call_soon(self.abort, "the server became a replica")
        if code == "NOREPLICAS":
            self.doubt.set()
        kind_of_error = SlotMigrating if code == "TRYAGAIN" else StateUnavailable
        return kind_of_error(f"{self._where} cannot serve now: {message}")


def seen(reply: asyncio.Future[Any]) -> None:
    """Take note of a reply that may have nobody to await it, so that asyncio does not report its error a second time;
    the call before or behind it fails for the same reason."""
    if not reply.cancelled():
        reply.exception()
