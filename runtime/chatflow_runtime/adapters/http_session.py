"""The HTTP client that language models and business APIs share: one pool of kept connections, and host aliases.

Opened by `bootstrap` for the life of the process.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

KEEP_ALIVE_S = 30.0
"""How long an idle connection is kept. Below the idle timeouts of common servers (uvicorn, as in vLLM, has 5 s: there a
connection that was closed meanwhile is replaced)."""
DNS_TTL_S = 10
"""How long an address is kept: short, since a Service's address may change when it is made anew."""


@asynccontextmanager
async def open_session(host_aliases: Mapping[str, str] | None = None) -> AsyncIterator[aiohttp.ClientSession]:
    """A client session without cookies, proxies from the environment, or a limit on connections.

    `host_aliases` maps the host, or host:port, of a URL to the address (host:port) to connect to instead; the request
    itself, its Host header and the name on a certificate stay. A URL whose host is an IP address is left alone. The
    session has no timeouts: deadlines are the callers' own.
    """
    connector = aiohttp.TCPConnector(
        limit=0, keepalive_timeout=KEEP_ALIVE_S, ttl_dns_cache=DNS_TTL_S, resolver=_AliasResolver(host_aliases or {})
    )
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None),
        headers={"User-Agent": "chatflow"},
        trust_env=False,
    ) as session:
        yield session


class _AliasResolver(AbstractResolver):
    """Looks names up in the aliases first."""

    def __init__(self, aliases: Mapping[str, str]) -> None:
        self._aliases = {name.lower(): address for name, address in aliases.items()}
        self._names = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of a host; OSError when there are none."""
        name = host.lower()
        address = self._aliases.get(f"{name}:{port}") or self._aliases.get(name)
        if address is None:
            return await self._names.resolve(host, port, family)
        target, _, target_port = address.rpartition(":")
        found = await self._names.resolve(target.strip("[]"), int(target_port), family)
        return [{**one, "hostname": host} for one in found]

    async def close(self) -> None:
        """Nothing is held open."""
        await self._names.close()
