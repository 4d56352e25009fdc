"""Small clients of the gateway's protocols for the web's tests: server-sent events and unique users."""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp

_run = secrets.token_hex(4)
_numbers = itertools.count()


def new_user() -> str:
    """A user that no other test has."""
    return f"user-{_run}-{next(_numbers)}"


async def eventually(claim: Callable[[], bool], within_s: float = 10) -> None:
    """Wait until something holds that another thread brings about."""
    async with asyncio.timeout(within_s):
        while not claim():  # noqa: ASYNC110  There is no event to wait for: it happens inside the server.
            await asyncio.sleep(0.01)


@dataclass(frozen=True)
class Event:
    """One server-sent event."""

    kind: str
    data: Any
    id: str | None = None


def parse_event(frame: str) -> Event | None:
    """An event of its lines; None for comments and settings."""
    fields = dict(line.split(": ", 1) for line in frame.split("\n") if not line.startswith(":"))
    if "data" not in fields:
        return None
    return Event(fields.get("event", "message"), json.loads(fields["data"]), fields.get("id"))


async def events(response: aiohttp.ClientResponse) -> AsyncGenerator[Event, None]:
    """The events of a response, as they come."""
    buffer = ""
    async for piece in response.content.iter_any():
        buffer += piece.decode()
        *frames, buffer = buffer.split("\n\n")
        for frame in frames:
            event = parse_event(frame)
            if event is not None:
                yield event


async def frames(response: aiohttp.ClientResponse) -> AsyncIterator[str]:
    """The raw frames of an event stream, comments and settings included."""
    buffer = ""
    async for piece in response.content.iter_any():
        buffer += piece.decode()
        *whole, buffer = buffer.split("\n\n")
        for frame in whole:
            yield frame
