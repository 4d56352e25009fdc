"""The random key by which a flow's gateways sign sessions, kept in their state server where no Secret gives one.

Whoever can read that server reads the conversations themselves, so the key is as safe there as what it protects; and
it is lost together with them.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence

import structlog
from chatflow_api import names

from chatflow_runtime.errors import StateError
from chatflow_runtime.state.link import Link

log = structlog.get_logger()

BYTES = 32
REREAD_S = 30.0
"""After a server was emptied, or a failover that lost the key, the gateways agree again within this time."""


class SharedKey:
    """Agrees with the flow's other gateways on a key."""

    def __init__(self, link: Link, flow: str, use: Callable[[Sequence[bytes]], None]) -> None:
        self._link = link
        self._name = names.session_key_key(flow)
        self._use = use
        self._own = secrets.token_bytes(BYTES)

    async def check(self) -> None:
        """Read the key, or be the first to set it; StateError when the server does not answer."""
        await self._link.call("SET", self._name, self._own, "NX")
        self._own = await self._link.call("GET", self._name) or self._own
        self._use((self._own,))

    async def run(self) -> None:
        """Read it again and again, until cancelled."""
        while True:
            await asyncio.sleep(REREAD_S)
            try:
                await self.check()
            except StateError as error:
                log.warning("session_key_not_read", code=error.code, reason=str(error))
