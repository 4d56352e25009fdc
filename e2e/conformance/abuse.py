"""Clients that send too much, too slowly or without sense: each is refused clearly, the gateway's memory stays bounded,
and an ordinary client is answered meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from e2e.conformance import frames
from e2e.conformance.served import AUTHORIZATION
from e2e.faults.plant import Member

MIB = 1024 * 1024
SLOW_CLIENTS = 200
LARGE_BODIES = 1000
FLOODERS, FLOODS = 8, 200
AT_ONCE = 50
SLOW_S = 40.0
"""A slow client gives up after this long, unless it was refused before: longer than a head or a body may take."""
DRIP_S = 1.0
MAX_GROWTH_BYTES = 64 * MIB
"""How much more memory the gateway may have had, at the most, than before: less than the bodies under way at once."""
BODY_BEGUN = f"POST /v1/chat HTTP/1.1\r\nHost: g\r\nAuthorization: {AUTHORIZATION}\r\nContent-Length: 60000\r\n\r\n"
ASKED = json.dumps({"uid": "ordinary", "text": "When are you open?"}).encode()


@dataclass(frozen=True)
class Row:
    """One kind of abuse."""

    name: str
    is_right: bool
    outcome: str


def _text(length: int) -> bytes:
    return json.dumps({"uid": "u", "text": "字" * length}).encode()


NESTED = b'{"messages": [{"role": "user", "content": "x"}], "x": '
BODIES: tuple[tuple[str, str, bytes, int], ...] = (
    ("a text of 10,000 characters", "/v1/chat", _text(10_000), 413),
    ("a text of 2,001 characters", "/v1/messages", _text(2_001), 413),
    ("a text of 2,000 characters", "/v1/chat", _text(2_000), 200),
    ("1 MiB", "/v1/chat", b" " * MIB, 413),
    ("1 MiB of JSON", "/v1/messages", json.dumps({"uid": "u", "text": "x" * MIB}).encode(), 413),
    ("more than 1 MiB for OpenAI's route", "/v1/chat/completions", b" " * (MIB + 1), 413),
    ("invalid UTF-8", "/v1/chat", b'{"uid": "u", "text": "\xff\xfe"}', 400),
    ("half a pair of surrogates", "/v1/chat", b'{"uid": "u", "text": "\\ud800"}', 400),
    ("60,000 lists in each other", "/v1/chat", b"[" * 60_000, 422),
    ("60,000 lists inside a field", "/v1/chat/completions", NESTED + b"[" * 60_000, 400),
    ("a number of 10,000 digits", "/v1/ratings", b'{"uid": "u", "score": %s}' % (b"9" * 10_000), 422),
    ("a number beyond all", "/v1/ratings", b'{"uid": "u", "score": 1e999}', 422),
    ("NUL in a user id", "/v1/chat", b'{"uid": "u\\u0000", "text": "x"}', 422),
    ("NUL bytes", "/v1/chat", bytes(1000), 400),
    ("60,000 unknown fields", "/v1/chat", b"{" + b",".join(b'"%d":0' % at for at in range(5_000)) + b"}", 422),
)
"""Name, route, body, status."""
QUERIES: tuple[tuple[str, str, int], ...] = (
    ("a query of 2,000 parameters", "/v1/config?" + "&".join(f"a{at}=b" for at in range(2_000)), 200),
    ("a query that is no UTF-8", "/v1/events?uid=%ff", 400),
    ("NUL in a query", "/v1/events?uid=u%00", 422),
    ("a user id of 10,000 characters", "/v1/events?uid=" + "u" * 10_000, 422),
    ("a path of 60,000 characters", "/" + "p" * 60_000, 404),
    ("a query of 100,000 characters", "/v1/config?" + "q" * 100_000, 431),
)


async def run(gateway: Member) -> list[Row]:
    """All of it, and what it has cost."""
    before = _peak_bytes(gateway)
    rows = []
    async with _ordinary(gateway) as asked:
        async with _session(gateway) as session:
            rows += [await _body(session, *row) for row in BODIES]
            rows += [await _query(gateway, *row) for row in QUERIES]
        rows.append(await _many_bodies(gateway))
        rows += await asyncio.gather(
            _many(gateway, "heads that drip", _dripping(b"GET /v1/config HTTP/1.1\r\nHost: g\r\nX: ")),
            _many(gateway, "bodies that drip", _dripping(BODY_BEGUN.encode())),
            _many(gateway, "connections that say nothing", _dripping(b"", b"")),
        )
        rows.append(await _flood(gateway))
    growth = _peak_bytes(gateway) - before
    peak = f"peak {before / MIB:.0f} MiB before, {growth / MIB:.0f} MiB more"
    rows.append(Row("memory", growth <= MAX_GROWTH_BYTES, peak))
    rows.append(_answered(*asked))
    rows.append(_quiet(gateway))
    return rows


@asynccontextmanager
async def _session(gateway: Member) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(gateway.url, headers={"Authorization": AUTHORIZATION}) as session:
        yield session


async def _body(session: aiohttp.ClientSession, name: str, path: str, body: bytes, status: int) -> Row:
    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 32 * 1024):
            yield body[at : at + 32 * 1024]

    seen = []
    for data in (body, chunks()):
        async with session.post(path, data=data, headers={"Content-Type": "application/json"}) as response:
            seen.append(await _refusal(response))
    is_right = {status} == {found for found, _ in seen}
    return Row(name, is_right, f"{seen[0][0]} {seen[0][1]}; in chunks {seen[1][0]} {seen[1][1]}")


async def _query(gateway: Member, name: str, target: str, status: int) -> Row:
    head = f"GET {target} HTTP/1.1\r\nHost: g\r\nConnection: close\r\nAuthorization: {AUTHORIZATION}\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(head.encode())
    async with asyncio.timeout(frames.WAIT_S):
        said = (await reader.read()).decode()
    writer.close()
    return Row(name, int(said.split()[1]) == status, f"{said.split()[1]} {_code(said)}")


async def _refusal(response: aiohttp.ClientResponse) -> tuple[int, str]:
    return response.status, _code(await response.text())


def _code(said: str) -> str:
    found = re.search(r'"code": ?"(\w+)"', said)
    return found[1] if found else ""


async def _many_bodies(gateway: Member) -> Row:
    slots, seen = asyncio.Semaphore(AT_ONCE), dict[int, int]()
    body = bytes(MIB)

    async def one(session: aiohttp.ClientSession) -> None:
        async with slots, session.post("/v1/chat", data=body) as response:
            await response.read()
            seen[response.status] = seen.get(response.status, 0) + 1

    began_s = time.monotonic()
    async with _session(gateway) as session:
        await asyncio.gather(*(one(session) for _ in range(LARGE_BODIES)))
    outcome = f"{LARGE_BODIES} in {time.monotonic() - began_s:.1f} s: {seen}"
    return Row("bodies of 1 MiB", seen == {413: LARGE_BODIES}, outcome)


Client = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def _many(gateway: Member, name: str, client: Client) -> Row:
    """Slow clients at once: each must have been ended by the gateway within `SLOW_S`."""
    ended_s: list[float] = []
    said: dict[str, int] = {}

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        began_s = time.monotonic()
        abusing = asyncio.ensure_future(client(reader, writer))
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(SLOW_S):
                answer = (await reader.read()).decode("latin-1").partition("\r\n")[0]
                ended_s.append(time.monotonic() - began_s)
                said[answer] = said.get(answer, 0) + 1
        abusing.cancel()
        writer.close()

    await asyncio.gather(*(one() for _ in range(SLOW_CLIENTS)))
    slowest = f"after {max(ended_s):.1f} s at the most" if ended_s else ""
    return Row(name, len(ended_s) == SLOW_CLIENTS, f"{len(ended_s)} of {SLOW_CLIENTS} ended {slowest}: {said}")


def _dripping(begun: bytes, drop: bytes = b"a") -> Client:
    """A client that begins a request, and goes on with a byte a second."""

    async def client(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(begun)
        while not writer.is_closing():
            await asyncio.sleep(DRIP_S)
            writer.write(drop)

    return client


async def _flood(gateway: Member) -> Row:
    """Pings without end from clients that read no pong (asyncio stops by itself at 128 KiB)."""
    flood = frames.frame(frames.PING, bytes(125)) * 1000

    async def one(number: int) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(frames.opening(f"/v1/ws?uid=flood-{number}"))
        await reader.readuntil(b"\r\n\r\n")
        sent = 0
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(SLOW_S):
                for _ in range(FLOODS):
                    writer.write(flood)
                    await writer.drain()
                    sent += len(flood)
        writer.transport.abort()
        return sent

    sent = sum(await asyncio.gather(*map(one, range(FLOODERS))))
    return Row("pings without end, pongs unread", sent > 0, f"{sent / MIB:.0f} MiB from {FLOODERS} clients")


@asynccontextmanager
async def _ordinary(gateway: Member) -> AsyncIterator[tuple[list[float], list[str]]]:
    """A client that asks again and again; how long each answer took in seconds, and what was none."""
    took_s: list[float] = []
    refused: list[str] = []

    async def ask() -> None:
        async with _session(gateway) as session:
            while True:
                began_s = time.monotonic()
                async with session.post("/v1/chat", data=ASKED) as response:
                    said = await response.text()
                took_s.append(time.monotonic() - began_s)
                if response.status != 200:
                    refused.append(f"{response.status} {_code(said)}")
                await asyncio.sleep(0.1)

    asking = asyncio.ensure_future(ask())
    try:
        yield took_s, refused
    finally:
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking


def _answered(took_s: list[float], refused: list[str]) -> Row:
    took = sorted(took_s)
    figures = f"{len(took)} answers, p50 {took[len(took) // 2] * 1000:.0f} ms, slowest {took[-1] * 1000:.0f} ms"
    return Row("an ordinary client meanwhile", not refused, f"{figures}, refused {refused[:3]}")


def _quiet(gateway: Member) -> Row:
    """Nobody's mistakes are the gateway's errors."""
    errors = [line for line in gateway.log.splitlines() if '"level": "error"' in line]
    return Row("errors in the log", not errors, errors[0][:300] if errors else "0")


def _peak_bytes(gateway: Member) -> int:
    status = Path(f"/proc/{gateway.pid}/status").read_text(encoding="ascii")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024
