"""Child processes of `up`: each in a group of its own, tied to the supervisor's life, its log shown with a name.

Called by `kept`, and by `artefacts` for the builder.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from chatflow_cli.errors import PartFailed
from chatflow_cli.local.console import Console

_LEASH = str(Path(__file__).with_name("leash.py"))
_LINE_LIMIT = 1 << 20
_SHOWN_LINES = 15


@dataclass(frozen=True)
class Command:
    """How a child is started. `environment` is added to the supervisor's own."""

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    folder: Path | None = None
    grace_s: float = 10.0
    """How long it may take to end after SIGTERM before it is killed."""
    is_shown: bool = True
    """Whether its log is printed; otherwise it is seen only when the child fails."""


class Child:
    """One running child."""

    def __init__(self, command: Command, process: asyncio.subprocess.Process, console: Console) -> None:
        self.command = command
        self.is_stopping = False
        self._process = process
        self._console = console
        self._log = asyncio.create_task(self._pump())

    @classmethod
    async def start(cls, command: Command, console: Console) -> Child:
        """Start it; PartFailed when its program cannot be run."""
        environment = {**os.environ, **command.environment}
        # Programs installed beside this Python (a virtual environment's) are found without activating it.
        environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
        environment.setdefault("PYTHONUNBUFFERED", "1")
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-IS",
                _LEASH,
                str(os.getpid()),
                *command.arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=environment,
                cwd=command.folder,
                start_new_session=True,
                limit=_LINE_LIMIT,
            )
        except OSError as error:
            raise PartFailed(f"{command.name}: cannot start {command.arguments[0]} ({error.strerror})") from error
        return cls(command, process, console)

    @property
    def name(self) -> str:
        """Its name in the log."""
        return self.command.name

    @property
    def pid(self) -> int:
        """Its process id, which is also its group's."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.returncode is None

    async def wait(self) -> int:
        """Its exit status, once it has ended and all of its log is out."""
        status = await self._process.wait()
        await self._log
        return status

    async def ready(self, probe: Callable[[], Awaitable[bool]], deadline_s: float, interval_s: float = 0.05) -> None:
        """Wait until `probe` is true; PartFailed with the last of its log when it ends first, or is late."""
        try:
            async with asyncio.timeout(deadline_s):
                while not await probe():
                    if not self.is_running:
                        await self._log
                        raise PartFailed(self.failure(f"ended with status {self._process.returncode}"))
                    # A program of any kind tells its readiness only to those who ask.
                    await asyncio.sleep(interval_s)
        except TimeoutError as error:
            raise PartFailed(self.failure(f"was not ready after {deadline_s:.0f} s")) from error

    def failure(self, what: str) -> str:
        """What happened to it, and the last lines of its log."""
        lines = self._console.tail(self.name, _SHOWN_LINES)
        return "\n".join([f"{self.name} {what}; its last words:", *(f"  {line}" for line in lines or ["(none)"])])

    async def stop(self) -> None:
        """SIGTERM to its group, SIGKILL after the grace time; returns when it has ended."""
        self.is_stopping = True
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), self.command.grace_s)
        except TimeoutError:
            self._console.say(f"{self.name} did not end within {self.command.grace_s:.0f} s and is killed")
        # Grandchildren that outlived it go with its group.
        self._signal(signal.SIGKILL)
        await self._process.wait()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._log, 1.0)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    async def _pump(self) -> None:
        stream = self._process.stdout
        assert stream is not None, "the pipe was asked for"  # noqa: S101
        while True:
            try:
                line = await stream.readline()
            except ValueError:
                # A line beyond the limit; the reader has dropped it.
                continue
            if not line:
                return
            self._console.log(self.name, line.decode("utf-8", "replace").rstrip(), is_shown=self.command.is_shown)
