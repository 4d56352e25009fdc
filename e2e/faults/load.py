"""Users who talk: each sends one message after another over several channels, repeats one until it is accepted, and
keeps an account of what it has sent and heard."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from tests_runtime.web_clients import events

from e2e.faults.ledger import Kept, Sent, mark
from e2e.faults.plant import KNOWN

PATIENCE_S = 120.0
"""A user gives a message up that is not accepted for this long."""
ATTEMPT_S = 20.0
PAUSE_S = 0.2
LEFT_AT_ONCE = 4
"""Messages that a user leaves one after the other before it reads the answers."""
OUTBOX = 180
"""Messages of one user at most: an outbox keeps two hundred replies, and the audit wants to see all of them."""
READ_S = 60.0
"""An outbox that brings nothing new for this long brings nothing more."""


class Refused(Exception):
    """A problem response. `is_retryable`: the same message may be accepted later."""

    def __init__(self, problem: dict[str, Any]) -> None:
        super().__init__(f"{problem['status']} {problem['code']}: {problem['detail']}")
        self.is_retryable = problem["retryable"]


@dataclass
class User:
    """One user: sticks to a gateway until that fails."""

    number: int
    urls: Sequence[str]
    session: aiohttp.ClientSession
    chance: random.Random
    sent: list[Sent] = field(default_factory=list)
    retries: int = 0
    answered_at_s: list[float] = field(default_factory=list)
    first_delta_s: list[float] = field(default_factory=list)
    """From the request to the first piece of a streamed answer, of whichever model."""

    @property
    def uid(self) -> str:
        """The user's id."""
        return f"u{self.number}"

    async def talk(self, messages: int, until_s: float) -> None:
        """Send so many messages, and further ones until a monotonic time, and wait for the answers. With that time the
        messages are spread over it: as many as an outbox holds are soon sent, before any fault has come."""
        self._at = self.number % len(self.urls)
        began_s = time.monotonic()
        while (count := len(self.sent)) < messages or (count < OUTBOX and time.monotonic() < until_s):
            channel = self.chance.choice((self._whole, self._streamed, self._spoken, None))
            if channel is None:
                await self._leave_some(min(LEFT_AT_ONCE, OUTBOX - count))
            else:
                one = self._next()
                await self._until_accepted(one, channel)
            pace_s = (until_s - began_s) * len(self.sent) / OUTBOX
            await asyncio.sleep(max(0.0, began_s + pace_s - time.monotonic()))

    def _next(self) -> Sent:
        number = len(self.sent)
        question = self.chance.choice([*KNOWN, "Tell me a story about", "What do you think of"])
        one = Sent(f"m{number}", question if question in KNOWN else f"{question} {mark(self.number, number)}")
        self.sent.append(one)
        return one

    async def _until_accepted(self, one: Sent, send: Callable[[Sent], Awaitable[None]]) -> None:
        """Repeat a message under its id until it is accepted."""
        began_s = time.monotonic()
        while not one.is_accepted:
            try:
                async with asyncio.timeout(ATTEMPT_S):
                    await send(one)
            except (aiohttp.ClientError, TimeoutError, Refused) as error:
                one.refusal = str(error) or type(error).__name__
                is_final = isinstance(error, Refused) and not error.is_retryable
                if is_final or time.monotonic() - began_s > PATIENCE_S:
                    return
                self.retries += 1
                self._at = (self._at + 1) % len(self.urls)
                await asyncio.sleep(PAUSE_S * self.chance.uniform(0.5, 1.5))
        one.took_s = time.monotonic() - began_s

    async def _whole(self, one: Sent) -> None:
        async with self._post("/v1/chat", one, "application/json") as response:
            reply = await _content(response)
        self._heard(one, reply["text"])

    async def _streamed(self, one: Sent) -> None:
        began_s, has_begun = time.monotonic(), False
        async with self._post("/v1/chat", one, "text/event-stream") as response:
            if response.status != 200:
                raise Refused(await response.json())
            async with aclosing(events(response)) as stream:
                async for event in stream:
                    if event.kind == "error":
                        raise Refused(event.data)
                    if event.kind == "delta" and not has_begun:
                        has_begun = True
                        self.first_delta_s.append(time.monotonic() - began_s)
                    if event.kind == "reply":
                        self._heard(one, event.data["text"])
                        return
        raise aiohttp.ClientError("the stream ended before the reply")

    async def _spoken(self, one: Sent) -> None:
        """Over a WebSocket of its own."""
        async with self.session.ws_connect(f"{self.urls[self._at]}/v1/ws?uid={self.uid}") as socket:
            await socket.send_json({"type": "message", "message_id": one.message_id, "text": one.text})
            async for frame in socket:
                content = frame.json()
                if content.get("message_id") != one.message_id:
                    continue
                if content["type"] == "error":
                    raise Refused(content["problem"])
                if content["type"] == "reply":
                    self._heard(one, content["text"])
                    return
        raise aiohttp.ClientError(f"the WebSocket ended before the reply, with {socket.close_code}")

    async def _leave_some(self, count: int) -> None:
        """Leave messages to be answered later, then read the answers."""
        resume = ""
        left: list[Sent] = []
        for _ in range(count):
            one = self._next()

            async def leave(one: Sent) -> None:
                nonlocal resume
                async with self._post("/v1/messages", one, "application/json") as response:
                    accepted = await _content(response)
                one.is_accepted, resume = True, resume or accepted["last_event_id"]

            await self._until_accepted(one, leave)
            if one.is_accepted:
                left.append(one)
        if left:
            await self._read(resume, {one.message_id: one for one in left})

    async def _read(self, after: str, wanted: dict[str, Sent]) -> None:
        """Read on from an outbox id until all that is wanted has come, from one gateway or the other."""
        end_s = time.monotonic() + READ_S
        while any(not one.heard for one in wanted.values()) and time.monotonic() < end_s:
            try:
                params = {"uid": self.uid, "last_event_id": after}
                async with (
                    asyncio.timeout(ATTEMPT_S),
                    self.session.get(f"{self.urls[self._at]}/v1/events", params=params) as response,
                    aclosing(events(response)) as stream,
                ):
                    async for event in stream:
                        after, end_s = event.id or after, time.monotonic() + READ_S
                        one = wanted.get(event.data.get("message_id"))
                        if event.kind == "reply" and one is not None:
                            self._heard(one, event.data["text"])
                        if all(one.heard for one in wanted.values()):
                            return
            except (aiohttp.ClientError, TimeoutError):
                self.retries += 1
                self._at = (self._at + 1) % len(self.urls)
                await asyncio.sleep(PAUSE_S)

    def _heard(self, one: Sent, text: str) -> None:
        one.is_accepted = True
        one.heard.append(text)
        self.answered_at_s.append(time.monotonic())

    def _post(self, path: str, one: Sent, accept: str) -> Any:
        body = {"uid": self.uid, "message_id": one.message_id, "text": one.text}
        return self.session.post(f"{self.urls[self._at]}{path}", json=body, headers={"accept": accept})


async def _content(response: aiohttp.ClientResponse) -> dict[str, Any]:
    content: dict[str, Any] = await response.json(content_type=None)
    if response.status >= 400:
        raise Refused(content)
    return content


async def outbox(session: aiohttp.ClientSession, url: str, uid: str, last: str) -> list[Kept]:
    """The replies in a user's outbox up to the one to message `last`; what is there when that one does not come."""
    found: list[Kept] = []
    try:
        params = {"uid": uid, "last_event_id": "0"}
        async with (
            asyncio.timeout(5.0),
            session.get(f"{url}/v1/events", params=params) as response,
            aclosing(events(response)) as stream,
        ):
            async for event in stream:
                if event.kind == "reply":
                    found.append(Kept(event.data["message_id"], event.data["text"]))
                    if found[-1].message_id == last:
                        break
    except TimeoutError:
        pass
    return found
