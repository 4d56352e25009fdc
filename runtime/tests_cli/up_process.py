"""`chatflow up` as a process, for tests: started, its output read, its own processes found by their role."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from chatflow_cli.local.sockets import free_port

ROOT = Path(__file__).resolve().parents[2]
START_S = 240.0
"""Training the shop takes 40 s of CPU, on a busy machine several times as long."""
STOP_S = 30.0
OPEN = ("--set", "gateway.auth.required=false")
"""Users are named by uid alone."""
LIGHT = ("--set", "models.intent.encoder=none")
"""Without the sentence encoder: the shop is up in half the time."""
PROGRAM = [sys.executable, "-c", "from chatflow_cli.main import main; main()"]


@dataclass
class Up:
    """A running `chatflow up`, with its output so far."""

    process: asyncio.subprocess.Process
    url: str
    lines: list[str]
    news: asyncio.Condition

    async def says(self, text: str, within_s: float) -> str:
        """The first line from now on, or already there, that holds `text`."""
        async with asyncio.timeout(within_s), self.news:
            while not (found := [line for line in self.lines if text in line]):
                assert self.process.returncode is None, "up has ended:\n" + "\n".join(self.lines)
                await self.news.wait()
        return found[0]

    def forget(self) -> None:
        """Wait for new lines only from here on."""
        self.lines.clear()

    async def pump(self) -> None:
        assert self.process.stdout is not None
        async for raw in self.process.stdout:
            async with self.news:
                self.lines.append(raw.decode().rstrip())
                self.news.notify_all()
        async with self.news:
            self.news.notify_all()


@asynccontextmanager
async def running(*arguments: str, folder: Path) -> AsyncIterator[Up]:
    """`chatflow up` with these arguments, ended as Ctrl-C does if it is still there, and killed if that takes long."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *PROGRAM,
        *("up", *arguments, *OPEN, "--port", str(port)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=folder,
        env={**os.environ, "PYTHONUTF8": "1"},
    )
    up = Up(process, f"http://127.0.0.1:{port}", [], asyncio.Condition())
    pump = asyncio.create_task(up.pump())
    try:
        yield up
    finally:
        await _end(process)
        await pump


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGINT)
    try:
        await asyncio.wait_for(process.wait(), STOP_S)
    except TimeoutError:
        process.kill()
        await process.wait()


def descendants(pid: int) -> set[int]:
    """Every process below another, zombies left out."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if fields[0] not in "ZX":
            parents[int(stat.parent.name)] = int(fields[1])
    found: set[int] = set()
    fresh = {pid}
    while fresh:
        fresh = {child for child, parent in parents.items() if parent in fresh}
        found |= fresh
    return found


def of_role(pid: int, role: str) -> set[int]:
    """The runtime's processes of one role below a supervisor."""
    found = set()
    for child in descendants(pid):
        try:
            words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"--role" in words and role.encode() in words:
            found.add(child)
    return found
