"""A child that is kept running: started again when it ends by itself, replaced without a gap when its command changes.

Called by `stack` and `fleet`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from chatflow_cli.errors import PartFailed
from chatflow_cli.local.children import Child, Command
from chatflow_cli.local.console import Console

Probe = Callable[[], Awaitable[bool]]
"""Whether a child is ready."""

_FIRST_DELAY_S = 0.5
_LONGEST_DELAY_S = 15.0
_STEADY_S = 30.0
"""A child that ran this long counts as healthy: the next restart is quick again."""


@dataclass(frozen=True)
class Part:
    """How one part runs: its command, how to see that it is ready, and how long that may take."""

    command: Command
    probe: Probe
    deadline_s: float


class Kept:
    """One part of a flow, kept running until `stop`."""

    def __init__(self, part: Part, child: Child, console: Console) -> None:
        self._part = part
        self._child = child
        self._console = console
        self._monitor = asyncio.create_task(self._keep())

    @classmethod
    async def start(cls, part: Part, console: Console) -> Kept:
        """Start it and wait until it is ready; PartFailed when it does not come up."""
        return cls(part, await _started(part, console), console)

    @property
    def pid(self) -> int:
        """The process id at the moment."""
        return self._child.pid

    async def replace(self, part: Part) -> None:
        """Start the part in its new form, and only then end the old one: both serve for a moment.

        PartFailed when the new one does not come up; the old one keeps running then.
        """
        fresh = await _started(part, self._console)
        await self._take(part, fresh)

    async def restart(self, part: Part) -> None:
        """End it, then start it in its new form: for parts that cannot run twice at a time."""
        self._monitor.cancel()
        await self._child.stop()
        self._part = part
        self._child = await _started(part, self._console)
        self._monitor = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """End it."""
        self._monitor.cancel()
        await self._child.stop()

    async def _take(self, part: Part, fresh: Child) -> None:
        self._monitor.cancel()
        old, self._part, self._child = self._child, part, fresh
        self._monitor = asyncio.create_task(self._keep())
        await old.stop()

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        delay_s = _FIRST_DELAY_S
        while True:
            since_s = loop.time()
            status = await self._child.wait()
            delay_s = _FIRST_DELAY_S if loop.time() - since_s > _STEADY_S else min(delay_s * 2, _LONGEST_DELAY_S)
            what = f"{self._child.name} ended with status {status}; starting it again in {delay_s:.1f} s"
            self._console.say(what)
            if not self._part.command.is_shown:
                for line in self._child.failure("ended").splitlines():
                    self._console.say(line)
            await asyncio.sleep(delay_s)
            try:
                self._child = await _started(self._part, self._console)
            except PartFailed as error:
                self._console.say(error.message)


async def _started(part: Part, console: Console) -> Child:
    child = await Child.start(part.command, console)
    try:
        await child.ready(part.probe, part.deadline_s)
    except BaseException:
        await child.stop()
        raise
    return child


async def listens(host: str, port: int) -> bool:
    """Whether something accepts connections there."""
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True


async def answers_ok(host: str, port: int, path: str) -> bool:
    """Whether `GET path` there is answered with 200."""
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        return b" 200 " in await reader.readline()
    except OSError:
        return False
    finally:
        writer.close()
