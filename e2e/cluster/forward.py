"""Carries connections from the machine's loopback into the bed: `python -m e2e.cluster.forward FD HOST PORT`.

It runs inside the bed's network namespace; the listening socket, made outside, is handed to it as file descriptor FD.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys

CHUNK = 65536


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(CHUNK):
            writer.write(chunk)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()


async def serve(listener: socket.socket, host: str, port: int) -> None:
    """Accept on `listener` and connect each to `host`:`port`, until cancelled."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(host, port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        for end in (writer, far_writer):
            end.close()

    server = await asyncio.start_server(carry, sock=listener)
    await server.serve_forever()


def main() -> None:
    """Serve the descriptor that the caller passed."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    asyncio.run(serve(listener, sys.argv[2], int(sys.argv[3])))


if __name__ == "__main__":
    main()
