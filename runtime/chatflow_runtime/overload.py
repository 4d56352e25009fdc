"""Keeps a process' `Admission` up to date: how late its event loop is, and how much the flow's others have under way.
Run by `bootstrap` beside a gateway."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from chatflow_runtime.domain.admission import SAMPLE_S, Admission, Pressure
from chatflow_runtime.errors import StateError

TELL_S = 1.0


async def watch_loop(pressure: Pressure) -> None:
    """Sample how late the event loop comes to what is due, until cancelled: everything that a turn does waits as
    long."""
    due_s = time.monotonic() + SAMPLE_S
    while True:
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        now_s = time.monotonic()
        pressure.sampled(now_s - due_s)
        due_s = now_s + SAMPLE_S


async def share_backlog(admission: Admission, tell: Callable[[int], Awaitable[int]]) -> None:
    """Tell the flow's others of our turns, and hear of theirs, until cancelled. While the state server is away we know
    of none but our own; its absence shows elsewhere."""
    while True:
        try:
            admission.elsewhere = await tell(admission.under_way)
        except StateError:
            admission.elsewhere = 0
        await asyncio.sleep(TELL_S)
