"""The primary of the day, as the sentinels of Redis or Valkey name it. Used by `url`.

Protocol: https://redis.io/docs/latest/develop/reference/sentinel-clients/
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from chatflow_runtime.errors import StateError, StateUnavailable
from chatflow_runtime.state.endpoint import Endpoint
from chatflow_runtime.state.wire import Wire

_ASK_S = 0.5
"""For the answer of one sentinel; a dead one must not hold up a failover."""


class Sentinels:
    """The Site of the primary that sentinels watch under a name. `server` is any of the servers: the primary is reached
    as it is, but for host and port."""

    def __init__(self, server: Endpoint, sentinels: Sequence[Endpoint], name: str) -> None:
        self._server = server
        self._sentinels = deque(sentinels)
        self._name = name
        scheme = "redis" if server.tls is None else "rediss"
        hosts = ",".join(sentinel.address for sentinel in sentinels)
        self._shown = f"{scheme}+sentinel://{hosts}/{name}/{server.database}"

    def __str__(self) -> str:
        return self._shown

    async def find(self) -> Endpoint:
        """The primary that the first sentinel to answer names. Every search begins with the sentinel behind the one
        that answered last, so that one with stale news is not believed twice in a row."""
        problems = []
        for _ in range(len(self._sentinels)):
            sentinel = self._sentinels[0]
            self._sentinels.rotate(-1)
            try:
                [answer] = await sentinel.ask(("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._name), timeout_s=_ASK_S)
                if answer is not None:
                    host, port = answer
                    return replace(self._server, host=host.decode(), port=int(port))
            except (OSError, StateError, ValueError) as error:
                problems.append(f"{sentinel.address}: {str(error) or type(error).__name__}")
                continue
            problems.append(f"{sentinel.address} watches no {self._name!r}; compare the name in the URL")
        raise StateUnavailable(f"no sentinel names the primary: {'; '.join(problems)}")

    async def check(self, wire: Wire) -> None:
        """StateUnavailable unless the server takes itself for a primary: sentinels may lag behind it."""
        role = (await wire.send(("ROLE",)))[0].decode()
        if role != "master":
            raise StateUnavailable(f"{wire}, which the sentinels name as the primary, says that it is a {role}")

    async def has_moved(self, wire: Wire) -> bool:
        """Whether two sentinels in turn name another server, which agrees. A primary that was told to hand over learns
        of its end last, some ten seconds after everyone else; a sentinel with stale news names a former one."""
        try:
            found = await self.find()
            if str(found) == str(wire):
                return False
            again = await self.find()
            async with asyncio.timeout(_ASK_S):
                # Some sentinels tell names, some numbers.
                first, second = await _addresses(found), await _addresses(again)
            if wire.peer() in first or not first & second:
                return False
            [role] = await found.ask(("ROLE",), timeout_s=_ASK_S)
        except (OSError, StateError, ValueError):
            return False
        return bool(role[0] == b"master")


async def _addresses(endpoint: Endpoint) -> set[tuple[str, int]]:
    """Numerical addresses and ports that an endpoint's name leads to."""
    found = await asyncio.get_running_loop().getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    return {(str(address[0]), int(address[1])) for *_, address in found}
