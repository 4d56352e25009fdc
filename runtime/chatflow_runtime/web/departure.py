"""Cancels an answer whose client has left: the language model behind it costs money, and others wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from starlette.types import Receive

from chatflow_runtime.web.exchange import ClientLeft

Pulse = Callable[[], Awaitable[None]]
"""Sends a sign of life."""


class Departure:
    """While its context lasts, a client that closes the connection cancels the running task, which then raises
    ClientLeft. The request body has been read by then.

    With `pulse`, a sign of life goes out after every `pulse_s`.
    """

    def __init__(self, receive: Receive, pulse: Pulse | None = None, pulse_s: float = 15.0) -> None:
        self._receive = receive
        self._pulse = pulse
        self._pulse_s = pulse_s
        self._watcher: asyncio.Task[None] | None = None
        self._has_left = False

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        self.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
        if not self._has_left or self._task is None:
            return
        # Another cancellation on top of ours, such as the server's own end, goes on as what it is.
        if self._task.uncancel() == 0 and isinstance(error, asyncio.CancelledError):
            raise ClientLeft("the client closed the connection before the reply") from None

    def begin(self) -> None:
        """Watch from now on."""
        self._watcher = asyncio.ensure_future(self._watch())

    async def _watch(self) -> None:
        while True:
            try:
                async with asyncio.timeout(None if self._pulse is None else self._pulse_s):
                    message = await self._receive()
            except TimeoutError:
                if self._pulse is not None:
                    await self._pulse()
                continue
            if message["type"] == "http.disconnect":
                break
        self._has_left = True
        if self._task is not None:
            self._task.cancel()


class PatientDeparture(Departure):
    """Watches only once the answer takes long: most are over before, and pay for no task."""

    def __init__(self, receive: Receive, departures: Departures) -> None:
        super().__init__(receive)
        self._departures = departures

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        self._departures.join(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._departures.leave(self)
        if self._watcher is not None:
            super().__exit__(kind, error, trace)


class Departures:
    """The answers that are not watched yet. One timer serves them all: a timer for each would cost more than all else
    that the web does for a request, since uvloop closes every one by way of the event loop."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._young: set[PatientDeparture] = set()
        self._old: set[PatientDeparture] = set()
        """Those that have been there for one whole tick; the next one begins to watch them."""
        self._is_ticking = False

    def patient(self, receive: Receive) -> PatientDeparture:
        """A departure that begins to watch after one to two times the patience."""
        return PatientDeparture(receive, self)

    def join(self, departure: PatientDeparture) -> None:
        """An answer begins."""
        self._young.add(departure)
        if not self._is_ticking:
            self._is_ticking = True
            asyncio.get_running_loop().call_later(self._patience_s, self._tick)

    def leave(self, departure: PatientDeparture) -> None:
        """It is over."""
        self._young.discard(departure)
        self._old.discard(departure)

    def _tick(self) -> None:
        for departure in self._old:
            departure.begin()
        self._old, self._young = self._young, set()
        self._is_ticking = bool(self._old)
        if self._is_ticking:
            asyncio.get_running_loop().call_later(self._patience_s, self._tick)
