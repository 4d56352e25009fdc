"""One state server: how it is reached and greeted. Used by `connection`; `url` reads them from a URL."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from chatflow_runtime.errors import StateUnavailable
from chatflow_runtime.state.wire import Argument, Wire

P = TypeVar("P", bound=asyncio.BaseProtocol)


class Site(Protocol):
    """Where a connection finds its server: always the same one, the primary of the day, or any node of a cluster.
    `str()` shows no password."""

    async def find(self) -> Endpoint:
        """The server to connect to now. OSError or StateError when it cannot be told."""

    async def check(self, wire: Wire) -> None:
        """StateUnavailable when the server that was found is, on its own word, not the one that is wanted."""

    async def has_moved(self, wire: Wire, /) -> bool:
        """Whether `find` leads elsewhere by now."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One server and the database on it, the Site that is always the same. `str()` shows no password."""

    host: str = "127.0.0.1"
    port: int = 6379
    path: str | None = None
    """A Unix socket, instead of host and port."""
    username: str | None = None
    password: str | None = None
    database: int = 0
    tls: ssl.SSLContext | None = None
    """The name on the certificate is compared with `host`, also where a sentinel or a cluster's node named it."""

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix://{self.path}"
        return f"{'redis' if self.tls is None else 'rediss'}://{self.address}/{self.database}"

    @property
    def address(self) -> str:
        """Host and port, as a URL writes them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    async def find(self) -> Endpoint:
        """Itself."""
        return self

    async def check(self, wire: Wire) -> None:
        """Whatever answers is the right one."""

    async def has_moved(self, _wire: Wire) -> bool:
        """Never."""
        return False

    async def connect(self, factory: Callable[[], P]) -> P:
        """A connected protocol; OSError when there is no way through, StateUnavailable when the host cannot be one."""
        loop = asyncio.get_running_loop()
        if self.path is not None:
            return (await loop.create_unix_connection(factory, self.path))[1]
        name = self.host if self.tls is not None else None
        try:
            return (await loop.create_connection(factory, self.host, self.port, ssl=self.tls, server_hostname=name))[1]
        except ValueError as error:
            raise StateUnavailable(f"{self}: the host cannot be looked up ({error})") from error

    def greeting(self, name: str, *, is_push: bool) -> list[tuple[Argument, ...]]:
        """The commands that begin a connection. RESP3 is asked for where pushes share it with replies."""
        commands: list[tuple[Argument, ...]] = []
        if self.password is not None:
            commands.append(("AUTH", *((self.username,) if self.username else ()), self.password))
        if is_push:
            commands.append(("HELLO", 3))
        if self.database:
            commands.append(("SELECT", self.database))
        commands.append(("CLIENT", "SETNAME", name))
        return commands

    async def ask(self, *commands: tuple[Argument, ...], timeout_s: float) -> list[Any]:
        """The replies to a few commands on a connection of their own. OSError (TimeoutError among them) or StateError
        when the server does not answer them all in time."""
        wire: Wire | None = None
        try:
            async with asyncio.timeout(timeout_s):
                wire = await self.connect(lambda: Wire(str(self), timeout_s, timeout_s, None))
                greeting = self.greeting("chatflow-enquiry", is_push=False)
                replies = await asyncio.gather(*(wire.send(command) for command in (*greeting, *commands)))
        finally:
            if wire is not None:
                wire.abort("asked and answered")
        return replies[len(greeting) :]
