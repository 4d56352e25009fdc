"""Turns that want one language model: those it is answering, those held while none of its servers runs, and for a while
those that went on without it, also because it has too much to do. `models` asks each model through one; the count is
what wakes a model from zero replicas, and calls for more.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

import structlog

from chatflow_runtime.domain.ladder import MEMORY_S, holds, wanting
from chatflow_runtime.domain.reply import Origin
from chatflow_runtime.errors import ModelAbsent, ModelOverloaded

log = structlog.get_logger()

T = TypeVar("T")

RETRY_S = 1.0
"""Between two attempts of a turn that is held. Each turn tries for itself, so that they do not all come at once."""


@dataclass(slots=True)
class Demand:
    """The demand for one model, in this process."""

    origin: Origin
    hold_s: float = 0.0
    """How long a turn waits while no server runs; 0: not at all."""
    monotonic_s: Callable[[], float] = time.monotonic
    wait: Callable[[float], Awaitable[None]] = asyncio.sleep
    _asking: int = 0
    _held: int = 0
    _without_s: deque[float] = field(default_factory=deque)
    """When turns ended that went on without it."""

    def turns(self) -> float:
        """How many turns want the model now."""
        now_s = self.monotonic_s()
        return wanting(self._asking, [now_s - at_s for at_s in self._without_s])

    async def ask(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """What an attempt gives. While no server runs it is made again, for as long as the turn may be held; then
        ModelAbsent."""
        began_s = self.monotonic_s()
        went_without = is_held = False
        self._asking += 1
        try:
            while True:
                try:
                    return await attempt()
                except ModelOverloaded:
                    # It wanted the model as much as the others, and scaling has to know.
                    went_without = True
                    raise
                except ModelAbsent:
                    went_without = True
                    if not holds(self.monotonic_s() - began_s + RETRY_S, self.hold_s, self._held - is_held):
                        raise
                if not is_held:
                    is_held = True
                    self._hold()
                await self.wait(RETRY_S)
        finally:
            self._asking -= 1
            self._held -= is_held
            if went_without:
                # Also of a user who lost patience: the model is to wake all the same.
                self._remember(self.monotonic_s())

    def _hold(self) -> None:
        if not self._held:
            log.info("model_awaited", origin=self.origin, hold_s=self.hold_s)
        self._held += 1

    def _remember(self, now_s: float) -> None:
        while self._without_s and now_s - self._without_s[0] > MEMORY_S:
            self._without_s.popleft()
        self._without_s.append(now_s)
