"""What a gateway waits for before it takes traffic, and for how long. Called by `bootstrap`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog

from chatflow_runtime.errors import ChatFlowError

log = structlog.get_logger()

PAUSE_S = 0.5
"""Between two attempts at the same need."""


@dataclass(frozen=True, slots=True)
class Need:
    """Something that a gateway wants to have. `check` raises ChatFlowError, with the reason, while it is missing."""

    name: str
    check: Callable[[], Awaitable[None]]


class Startup:
    """Waits for needs until one deadline for all of them, and goes on without those that are missing by then: a gateway
    that answers some questions is worth more than none.

    Each need is tried once at least. With a deadline of 0 s that one attempt may take as long as it takes.
    """

    def __init__(
        self, deadline_s: float, tell: Callable[[str], None], wait: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        """`tell` is given what is being waited for, whenever that changes."""
        self._now_s = asyncio.get_running_loop().time
        self._is_unhurried = deadline_s == 0
        self._deadline_s = self._now_s() + deadline_s
        self._tell = tell
        self._wait = wait
        self._missing: dict[str, str] = {}

    async def until(self, needs: Sequence[Need], at_least_s: float = 0.0) -> None:
        """Return once all needs are met, or at the deadline; what is missing then is logged. `at_least_s`: time for an
        attempt that began late."""
        self._missing = {need.name: "" for need in needs}
        self._told()
        end_s = max(self._deadline_s, self._now_s() + at_least_s)
        try:
            async with asyncio.timeout_at(None if self._is_unhurried else end_s):
                await asyncio.gather(*map(self._met, needs))
        except TimeoutError:
            pass
        for name, reason in self._missing.items():
            log.warning("started_without", missing=name, reason=reason or "it gave no answer")

    async def _met(self, need: Need) -> None:
        while True:
            try:
                await need.check()
            except ChatFlowError as error:
                self._missing[need.name] = str(error)
                self._told()
            else:
                del self._missing[need.name]
                self._told()
                return
            if self._now_s() >= self._deadline_s:
                return
            await self._wait(PAUSE_S)

    def _told(self) -> None:
        if self._missing:
            self._tell("; ".join(f"{name} ({reason})" if reason else name for name, reason in self._missing.items()))
