"""Cancels an answer whose client has left: the language model behind it costs money, and others wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType

from starlette.types import Receive

from chatflow_runtime.web.exchange import ClientLeft

Pulse = Callable[[], Awaitable[None]]
"""Sends a sign of life."""


class Departure:
    """While its context lasts, a client that closes the connection cancels the running task, which then raises
    ClientLeft.

    The watch begins after `after_s`, by a timer: a fast answer is over before, and pays for no task. The request body
    has been read by then. With `pulse`, a sign of life goes out after every `pulse_s` of the watch.
    """

    def __init__(self, receive: Receive, after_s: float, pulse: Pulse | None = None, pulse_s: float = 15.0) -> None:
        self._receive = receive
        self._after_s = after_s
        self._pulse = pulse
        self._pulse_s = pulse_s
        self._watcher: asyncio.Task[None] | None = None
        self._has_left = False

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(self._after_s, self._begin)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        if not self._has_left or self._task is None:
            return
        # Another cancellation on top of ours, such as the server's own end, goes on as what it is.
        if self._task.uncancel() == 0 and isinstance(error, asyncio.CancelledError):
            raise ClientLeft("the client closed the connection before the reply") from None

    def _begin(self) -> None:
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
