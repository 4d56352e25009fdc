"""A real HTTP server on the loopback interface that webhooks are told by, and that answers as tests have it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import web

UNTIL_S = 30.0


@dataclass(frozen=True)
class Post:
    """What came."""

    path: str
    headers: dict[str, str]
    body: bytes
    request: web.Request

    @property
    def id(self) -> str:
        """Of the delivery."""
        return self.headers["webhook-id"]

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return msgspec.json.decode(self.body)


Answer = Callable[[Post], Awaitable[web.StreamResponse]]


async def _ok(_: Post) -> web.StreamResponse:
    return web.Response(status=204)


@dataclass
class Receiver:
    """Keeps all posts in their order; `answer` is asked for each."""

    url: str = ""
    answer: Answer = _ok
    posts: list[Post] = field(default_factory=list)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def take(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        post = Post(request.path_qs, headers, await request.read(), request)
        async with self.news:
            self.posts.append(post)
            self.news.notify_all()
        return await self.answer(post)

    async def until(self, is_so: Callable[[list[Post]], bool]) -> None:
        """Return once the posts are as wanted."""
        async with asyncio.timeout(UNTIL_S), self.news:
            await self.news.wait_for(lambda: is_so(self.posts))

    def fail_first(self, count: int, status: int = 500) -> None:
        """Answer so many posts with a status, the others with 204."""
        left = [status] * count

        async def answer(_: Post) -> web.StreamResponse:
            return web.Response(status=left.pop() if left else 204)

        self.answer = answer


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver while the context lasts."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", receiver.take)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield receiver
    finally:
        await runner.cleanup()
