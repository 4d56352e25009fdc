"""A TCP proxy in front of a server, which can fall silent or cut everyone off, as a network does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum

CHUNK_BYTES = 1 << 16
IN_FLIGHT = 256
"""Pieces that are on their way at once."""


class Network(StrEnum):
    """What the network does."""

    UP = "up"
    SILENT = "silent"
    """Connections stay, and new ones are taken, but nothing comes through: packets are dropped."""
    CUT = "cut"
    """Connections are reset, and new ones too."""


class Proxy:
    """Stands before one server."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._is_up = asyncio.Event()
        self._is_up.set()
        self._state = Network.UP
        self._writers: set[asyncio.StreamWriter] = set()
        self._connections: set[asyncio.Task[None]] = set()
        self.port = 0
        self.delay_s = 0.0
        """How long everything is on its way."""

    def set(self, state: Network) -> None:
        """Be so from now on."""
        self._state = state
        if state is Network.UP:
            self._is_up.set()
            return
        self._is_up.clear()
        if state is Network.CUT:
            for writer in self._writers:
                writer.transport.abort()

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a connection."""
        connection = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def close(self) -> None:
        """Cut everyone off, and wait until they are gone."""
        self.set(Network.CUT)
        self._is_up.set()
        await asyncio.gather(*self._connections)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, both ways, until either side ends it."""
        if self._state is Network.CUT:
            writer.transport.abort()
            return
        try:
            there, back = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, back}
        self._writers |= pair
        try:
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._pass(reader, back))
                ways.create_task(self._pass(there, writer))
        finally:
            self._writers -= pair
            for each in pair:
                each.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        on_its_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(IN_FLIGHT)
        delivery = asyncio.create_task(self._deliver(on_its_way, writer))
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                await on_its_way.put((asyncio.get_running_loop().time() + self.delay_s, data))
        if self._state is Network.UP and not delivery.done():
            await on_its_way.put((0.0, b""))
            await asyncio.wait([delivery])
        delivery.cancel()
        writer.transport.abort()

    async def _deliver(self, on_its_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        """Write what is on its way when its time has come, until its end."""
        with contextlib.suppress(OSError):
            while True:
                due_s, data = await on_its_way.get()
                if not data:
                    return
                await asyncio.sleep(max(0.0, due_s - asyncio.get_running_loop().time()))
                await self._is_up.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


@asynccontextmanager
async def proxied(port: int, host: str = "127.0.0.1") -> AsyncIterator[Proxy]:
    """A proxy before a server, on a port of its own."""
    proxy = Proxy(host, port)
    server = await asyncio.start_server(proxy.connected, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
