"""`chatflow up examples/shop-support` for the tests of its protocols and its page: the processes that a user gets, with
the example's own order service and a scripted language model. Started once a session, by the fixture `live_shop`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from anyio.from_thread import BlockingPortal, start_blocking_portal
from tests_cli.up_process import LIGHT, ROOT, START_S, running
from tests_runtime.scripted_openai import Hold, Request, Say, Script, scripted_openai
from tests_runtime.web_script import MODEL_SAYS

# A model that a busy machine or a test keeps waiting is not given up.
PATIENCE = ("--set", "models.llm.firstTokenDeadline=60s", "--set", "models.llm.tokenGapDeadline=60s")


class LiveShop:
    """The running shop. An event loop in a thread of its own reads what its processes say, so that tests with and
    without a loop can share it."""

    def __init__(self, portal: BlockingPortal) -> None:
        self._portal = portal
        self._gate: asyncio.Event | None = None
        self.url = ""

    @contextmanager
    def halting_model(self) -> Iterator[Callable[[], None]]:
        """The language model's answer in this context stops after its first piece until it is told to go on: a client
        that tells it so once it has seen that piece shows that the gateway streams."""
        gate = self._gate = asyncio.Event()
        try:
            yield lambda: self._portal.call(gate.set)
        finally:
            self._gate = None
            self._portal.call(gate.set)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Run it while the context lasts."""
        async with scripted_openai(self._answer) as model:
            llm = ("--llm", model.base_url, "--llm-model", "scripted", *PATIENCE)
            async with running("examples/shop-support", "--ephemeral", "--no-reload", *LIGHT, *llm, folder=ROOT) as up:
                await up.says(f": {up.url}", START_S)
                self.url = up.url
                yield

    def _answer(self, _: Request) -> Script:
        first, *rest = (Say(piece) for piece in MODEL_SAYS)
        return Script((first, *([] if self._gate is None else [Hold(self._gate)]), *rest))


@contextmanager
def running_shop() -> Iterator[LiveShop]:
    """A shop while the context lasts."""
    with start_blocking_portal() as portal:
        shop = LiveShop(portal)
        with portal.wrap_async_context_manager(shop.run()):
            yield shop
