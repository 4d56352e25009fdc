"""WebSocket frames as bytes, well and badly made, and a client that says what comes back (RFC 6455, section 5)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os

from e2e.conformance.served import AUTHORIZATION

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10
WAIT_S = 10.0
KEY = base64.b64encode(bytes(range(16)))
ACCEPT = base64.b64encode(hashlib.sha1(KEY + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())  # noqa: S324  RFC 6455, 4.2.2.
OPENING = {
    "Host": "gateway",
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": KEY.decode(),
    "Sec-WebSocket-Version": "13",
    "Authorization": AUTHORIZATION,
}


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    reserved: int = 0,
    masked: bool = True,
    length: int | None = None,
    length_bytes: int | None = None,
) -> bytes:
    """A frame; `length` and `length_bytes` (0, 2 or 8 after the first) stand in for the right ones."""
    length = len(payload) if length is None else length
    if length_bytes is None:
        length_bytes = 0 if length < 126 else 2 if length < 65536 else 8
    first = length if length_bytes == 0 else {2: 126, 8: 127}[length_bytes]
    head = bytes([fin << 7 | reserved << 4 | opcode, masked << 7 | first])
    head += length.to_bytes(length_bytes) if length_bytes else b""
    if not masked:
        return head + payload
    mask = os.urandom(4)
    repeated = (mask * (len(payload) // 4 + 1))[: len(payload)]
    hidden = int.from_bytes(payload) ^ int.from_bytes(repeated)
    return head + mask + hidden.to_bytes(len(payload))


def close(code: int, reason: bytes = b"") -> bytes:
    """A close frame."""
    return frame(CLOSE, code.to_bytes(2) + reason)


def opening(path: str, without: str = "", method: str = "GET", version: str = "1.1", **changed: str) -> bytes:
    """A handshake, without a header, or with others."""
    headers = {name: value for name, value in OPENING.items() if name != without}
    headers |= {name.replace("_", "-"): value for name, value in changed.items()}
    lines = [f"{method} {path} HTTP/{version}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode()


class Peer:
    """A connection to the gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connected(cls, port: int) -> Peer:
        """Before the handshake."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)
        await self._writer.drain()

    async def head(self) -> str:
        """The answer to the handshake."""
        async with asyncio.timeout(WAIT_S):
            return (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")

    async def heard(self) -> str:
        """The next frame in words: `text pong`, `pong b'..'`, `close 1002`; `end` when the connection has ended."""
        try:
            async with asyncio.timeout(WAIT_S):
                return await self._frame()
        except TimeoutError:
            return "silence"
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return "end"

    def leave(self) -> None:
        """Close the connection."""
        self._writer.close()

    async def _frame(self) -> str:
        first, second = await self._reader.readexactly(2)
        length = second & 0x7F
        if length > 125:
            length = int.from_bytes(await self._reader.readexactly(2 if length == 126 else 8))
        payload = await self._reader.readexactly(length)
        if first & 0x70 or not first & 0x80 or second & 0x80:
            return f"badly made {first:08b} {second:08b}"
        match first & 0x0F:
            case 1:
                said = json.loads(payload)
                return f"text {said['type']}" + (f" {said['problem']['code']}" if said["type"] == "error" else "")
            case 8:
                return f"close {int.from_bytes(payload[:2])}" if payload else "close"
            case 10:
                return f"pong {len(payload)} {hashlib.sha256(payload).hexdigest()[:8]}"
            case opcode:
                return f"opcode {opcode}"


def pong_of(payload: bytes) -> str:
    """How `Peer.heard` puts the pong with this payload."""
    return f"pong {len(payload)} {hashlib.sha256(payload).hexdigest()[:8]}"
