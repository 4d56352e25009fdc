"""Where the state server is, read from its URL. Used by `connection`."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

from chatflow_runtime.errors import StateError

P = TypeVar("P", bound=asyncio.BaseProtocol)


class StateUrlInvalid(StateError):
    """The state server's URL cannot be used."""

    code = "state_url_invalid"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One server and the database on it. `str()` shows no password."""

    host: str = "127.0.0.1"
    port: int = 6379
    path: str | None = None
    """A Unix socket, instead of host and port."""
    username: str | None = None
    password: str | None = None
    database: int = 0
    tls: ssl.SSLContext | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix://{self.path}"
        return f"{'redis' if self.tls is None else 'rediss'}://{self.host}:{self.port}/{self.database}"

    @classmethod
    def of(cls, url: str) -> Endpoint:
        """The endpoint that a URL names, in the forms of redis-py: redis://user:password@host:port/database,
        rediss:// with TLS (`?ssl_ca_certs=FILE` for an authority of one's own), unix://user:password@/path?db=0.
        StateUrlInvalid names what is wrong."""
        parts = urlsplit(url)
        options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        if parts.scheme not in ("redis", "rediss", "unix"):
            raise StateUrlInvalid(
                f"state server URL: the scheme is {parts.scheme!r}; write redis://, rediss:// or unix://"
            )
        unknown = sorted(set(options) - {"db", "ssl_ca_certs"})
        if unknown:
            raise StateUrlInvalid(
                f"state server URL: option {unknown[0]!r} is not known; there are db and ssl_ca_certs"
            )
        is_unix = parts.scheme == "unix"
        database = options.get("db", "0") if is_unix else parts.path.strip("/") or options.get("db", "0")
        if not database.isdecimal():
            raise StateUrlInvalid(f"state server URL: database {database!r} is no number")
        return cls(
            host=parts.hostname or "127.0.0.1",
            port=_port(parts.netloc, lambda: parts.port) or 6379,
            path=unquote(parts.path) if is_unix else None,
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
            database=int(database),
            tls=_tls(options.get("ssl_ca_certs")) if parts.scheme == "rediss" else None,
        )

    async def connect(self, factory: Callable[[], P]) -> P:
        """A connected protocol; OSError when there is no way through."""
        loop = asyncio.get_running_loop()
        if self.path is not None:
            return (await loop.create_unix_connection(factory, self.path))[1]
        name = self.host if self.tls is not None else None
        return (await loop.create_connection(factory, self.host, self.port, ssl=self.tls, server_hostname=name))[1]

    def greeting(self, name: str, *, is_push: bool) -> list[tuple[str | int, ...]]:
        """The commands that begin a connection. RESP3 is asked for where pushes share it with replies."""
        commands: list[tuple[str | int, ...]] = []
        if self.password is not None:
            commands.append(("AUTH", *((self.username,) if self.username else ()), self.password))
        if is_push:
            commands.append(("HELLO", 3))
        if self.database:
            commands.append(("SELECT", self.database))
        commands.append(("CLIENT", "SETNAME", name))
        return commands


def _port(netloc: str, read: Callable[[], int | None]) -> int | None:
    try:
        return read()
    except ValueError as error:
        where = netloc.rpartition("@")[2]
        raise StateUrlInvalid(f"state server URL: {where!r} has no usable port ({error})") from error


def _tls(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise StateUrlInvalid(f"state server URL: cannot read ssl_ca_certs={ca_file} ({error.strerror})") from error
