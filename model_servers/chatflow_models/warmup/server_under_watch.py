"""The server beside the sidecar: whether it is still the same process, whether it is well, how fast it answers.

A held connection belongs to one process: when that ends, however it ends, the kernel closes it at once. A server may
also close it because nothing comes, so it is renewed now and then. Where that comes too late, the start time among the
server's metrics tells whether it is the same process.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from typing import Any

import aiohttp

from chatflow_models.warmup.settings import Settings

CONNECT_S = 2.0
ANSWER_S = 120.0
"""For one prompt: a cold server may compile for a while."""
TOKENS = ("content", "reasoning", "reasoning_content", "tool_calls")
"""Where a delta has its token. Models that think begin with `reasoning`; older servers call it `reasoning_content`."""
_STARTED = re.compile(rb"^process_start_time_seconds ([0-9.e+]+)", re.MULTILINE)


class Unanswered(Exception):
    """The server gives no usable answer; the message says why."""


class Hold:
    """An open connection to one process of the server, on which nothing is ever sent."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    @classmethod
    async def take(cls, settings: Settings) -> Hold:
        """Connect; Unanswered when nobody listens."""
        host, port = settings.url.host or "", settings.url.port or 80
        loop = asyncio.get_running_loop()
        made: socket.socket | None = None
        try:
            async with asyncio.timeout(CONNECT_S):
                (family, kind, *_, address), *_ = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                made = socket.socket(family, kind)
                made.setblocking(False)
                await loop.sock_connect(made, address)
        except OSError as error:
            if made is not None:
                made.close()
            raise Unanswered(f"{host}:{port} does not accept connections ({error or type(error).__name__})") from error
        return cls(made)

    @property
    def is_held(self) -> bool:
        """Whether the process is still there. The kernel is asked, not the event loop, which may be behind."""
        try:
            while self._socket.recv(4096):
                # Some say that nothing came before they close.
                pass
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    async def is_lost_within(self, seconds: float) -> bool:
        """Wait for the process's end, so long at most."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(seconds):
                while await loop.sock_recv(self._socket, 4096):
                    pass
        except OSError:
            return not self.is_held
        return True

    async def renew(self, settings: Settings) -> None:
        """Take a newer connection in place of this one, if this one outlives the taking: then both belong to one
        process."""
        try:
            newer = await Hold.take(settings)
        except Unanswered:
            return
        if self.is_held:
            self._socket, newer._socket = newer._socket, self._socket
        newer.let_go()

    def let_go(self) -> None:
        """Close it."""
        self._socket.close()


async def started_at(session: aiohttp.ClientSession, settings: Settings) -> bytes | None:
    """When the server's process began, as its metrics say it; None where they do not."""
    try:
        async with asyncio.timeout(CONNECT_S), session.get(settings.url.origin() / "metrics") as answer:
            found = _STARTED.search(await answer.read()) if answer.status == 200 else None
    except (aiohttp.ClientError, OSError):
        return None
    return None if found is None else found[1]


async def check_health(session: aiohttp.ClientSession, settings: Settings) -> None:
    """Unanswered when the server says nothing in time, or that it is broken. One without a /health is asked for its
    models, and with neither it is well as long as it says so."""
    status = 0
    try:
        async with asyncio.timeout(settings.patience.timeout_s):
            for url in (settings.url.origin() / "health", settings.url / "models"):
                async with session.get(url) as answer:
                    status = answer.status
                if status != 404:
                    break
    except (aiohttp.ClientError, OSError) as error:
        raise Unanswered(f"{type(error).__name__} {error}".strip()) from error
    if status >= 500:
        raise Unanswered(f"status {status}")


async def first_token_s(
    session: aiohttp.ClientSession, settings: Settings, prompt: list[dict[str, str]]
) -> float | None:
    """Seconds to the first token of an answer, which is read to its end; None when it has no token. Unanswered says
    what went wrong."""
    body = {"model": settings.model, "messages": prompt, "stream": True, "max_tokens": settings.max_tokens}
    began_s = time.perf_counter()
    first_s: float | None = None
    try:
        async with (
            asyncio.timeout(ANSWER_S),
            session.post(settings.url / "chat" / "completions", json=body) as answer,
        ):
            if answer.status != 200:
                said = (await answer.content.read(300)).decode(errors="replace")
                raise Unanswered(f"status {answer.status}: {said}")
            async for line in answer.content:
                if first_s is None and _has_token(line):
                    first_s = time.perf_counter() - began_s
    except (aiohttp.ClientError, OSError) as error:
        raise Unanswered(f"{type(error).__name__} {error}".strip()) from error
    return first_s


def _has_token(line: bytes) -> bool:
    """Unanswered when the line says that the answer broke off, as vLLM does after a status of 200."""
    if not line.startswith(b"data:"):
        return False
    try:
        chunk: Any = json.loads(line[5:])
        if chunk.get("error"):
            raise Unanswered(f"the answer broke off: {chunk['error']}")
        deltas = [choice.get("delta") or {} for choice in chunk.get("choices", ())]
    except (ValueError, AttributeError):
        return False
    return any(delta.get(kind) for delta in deltas for kind in TOKENS)
