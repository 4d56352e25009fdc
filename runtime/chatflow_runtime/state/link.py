"""What the Redis stores call through, and the choice of it by the URL. Used by `redis_store` and `redis_due`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from chatflow_runtime.state.cluster import ClusterConnection
from chatflow_runtime.state.connection import Connection, Patience
from chatflow_runtime.state.durability import Durability
from chatflow_runtime.state.scripts import Script
from chatflow_runtime.state.topology import Seeds
from chatflow_runtime.state.url import site_of
from chatflow_runtime.state.wire import Argument


class Link(Protocol):
    """Commands and scripts to wherever their keys are. StateUnavailable, at once or with the reply, when that is down;
    it comes back by itself."""

    async def open(self) -> None:
        """Connect. StateUnavailable after the first failure, but attempts go on until `close`."""

    async def close(self) -> None:
        """Disconnect and stop connecting; calls under way fail."""

    def call(self, *args: Argument) -> Awaitable[Any]:
        """The reply to one command, whose first argument is its only key, or which has no argument."""

    async def run(self, script: Script, *args: Argument) -> Any:
        """The reply of a script, given the number of its keys (one at least), the keys and the arguments."""

    async def run_then(
        self, script: Script, args: Sequence[Argument], following: Sequence[Argument]
    ) -> tuple[Any, Any]:
        """The replies of a script and of a command on the same keys right behind it, in one round trip."""


def link_to(
    url: str,
    *,
    name: str = "chatflow",
    scripts: Sequence[Script] = (),
    patience: Patience | None = None,
    durability: Callable[[], Durability] | None = None,
) -> Link:
    """The link that a URL asks for, not opened. With `durability`, which makes that of each connection, replies wait
    for replicas. StateUrlInvalid names what is wrong with the URL."""
    site = site_of(url)
    if isinstance(site, Seeds):
        return ClusterConnection(site, name=name, scripts=scripts, patience=patience, durability=durability)
    made = None if durability is None else durability()
    return Connection(site, name=name, scripts=scripts, patience=patience, durability=made)
