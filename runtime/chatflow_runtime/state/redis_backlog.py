"""How many turns the processes of a flow have under way, by Redis. `overload` asks once a second."""

from __future__ import annotations

from chatflow_api import names

from chatflow_runtime.ports import Clock
from chatflow_runtime.state.link import Link
from chatflow_runtime.state.rules import Rules
from chatflow_runtime.state.scripts import render


class RedisBacklog:
    """The flow's turns, as seen by one process. With a `clock` its time takes the place of the server's (tests)."""

    def __init__(self, link: Link, flow: str, process: str, rules: Rules, clock: Clock | None = None) -> None:
        self._link = link
        self._key = names.backlog_key(flow)
        self._process = process
        self._script = render(rules).backlog
        self._clock = clock

    async def tell(self, turns: int) -> int:
        """Say how many turns this process has under way; those of the others. StateError."""
        now = "" if self._clock is None else self._clock.now_ms()
        others = await self._link.run(self._script, 1, self._key, now, self._process, turns)
        return int(others)
