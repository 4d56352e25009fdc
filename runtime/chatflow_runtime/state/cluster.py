"""Connections to all primaries of a Redis or Valkey Cluster: one socket a primary, calls sent where their slot is. Used
by `link`.

The topology is read anew when a node redirects a call or is lost, and until every slot has a connected node.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from chatflow_runtime.errors import StateError, StateUnavailable
from chatflow_runtime.state.connection import Connection, Patience
from chatflow_runtime.state.durability import Durability
from chatflow_runtime.state.endpoint import Endpoint
from chatflow_runtime.state.scripts import Script
from chatflow_runtime.state.topology import SLOTS, Seeds, slot_of
from chatflow_runtime.state.wire import Argument, Redirection, ScriptMissing, SlotMigrating

_log = structlog.get_logger(__name__)

_ATTEMPTS = 6
"""How often a call is sent: redirections follow each other, and a slot under migration needs a while."""
Command = Sequence[Argument]


class ClusterConnection:
    """A Link to a cluster. Every command of a call has its keys in one slot. `durability` makes that of each node."""

    def __init__(
        self,
        seeds: Seeds,
        *,
        name: str = "chatflow",
        scripts: Sequence[Script] = (),
        patience: Patience | None = None,
        jitter: Callable[[], float] = random.random,
        durability: Callable[[], Durability] | None = None,
    ) -> None:
        self._durability = durability
        self._seeds = seeds
        self._name = name
        self._scripts = scripts
        self._patience = patience or Patience()
        self._jitter = jitter
        self._nodes: dict[str, Connection] = {}
        self._owners: list[Connection | None] = [None] * SLOTS
        self._stale = asyncio.Event()
        self._reason = "not connected yet"
        self._keeper: asyncio.Task[None] | None = None

    def __str__(self) -> str:
        return str(self._seeds)

    async def open(self) -> None:
        """Connect to every primary. StateUnavailable after the first failure, but attempts go on until `close`."""
        if self._keeper is not None:
            return
        try:
            await self._refresh()
        except (OSError, StateError) as error:
            raise StateUnavailable(f"{self}: cannot connect: {error}") from error
        finally:
            self._keeper = asyncio.create_task(self._keep(), name=f"state cluster {self._name}")

    async def close(self) -> None:
        """Close all sockets and stop connecting; calls under way fail."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        nodes, self._nodes = self._nodes, {}
        self._owners, self._reason = [None] * SLOTS, "closed"
        await asyncio.gather(*(node.close() for node in nodes.values()))

    async def call(self, *args: Argument) -> Any:
        """The reply to one command, whose first argument is its only key; without one, any node's."""
        return (await self._send(args[1] if len(args) > 1 else None, args))[0]

    async def run(self, script: Script, *args: Argument) -> Any:
        """The reply of a script, given the number of its keys, the keys and the arguments."""
        try:
            return (await self._send(args[1], (b"EVALSHA", script.sha, *args)))[0]
        except ScriptMissing:
            return (await self._send(args[1], (b"EVAL", script.source, *args)))[0]

    async def run_then(self, script: Script, args: Command, following: Command) -> tuple[Any, Any]:
        """The replies of a script and of a command right behind it, from one node and in one round trip."""
        try:
            first, second = await self._send(args[1], (b"EVALSHA", script.sha, *args), following)
        except ScriptMissing:
            first, second = await self._send(args[1], (b"EVAL", script.source, *args), following)
        return first, second

    async def _send(self, key: Argument | None, *commands: Command) -> list[Any]:
        """The replies to commands on one key, sent in one write to the node that serves it. From the first one on that
        a node has refused because its slot is elsewhere, they are sent again: there."""
        node, replies, is_once = self._owner(key), list[Any](), False
        for attempt in range(_ATTEMPTS):
            came = await _replies(node, commands[len(replies) :], is_asking=is_once)
            taken = next((number for number, reply in enumerate(came) if isinstance(reply, BaseException)), len(came))
            replies += came[:taken]
            if taken == len(came):
                return replies
            refusal = came[taken]
            if isinstance(refusal, Redirection):
                node, is_once = await self._redirected(refusal), refusal.is_once
            elif isinstance(refusal, SlotMigrating):
                await asyncio.sleep(self._patience.pause_s(attempt, self._jitter()))
                node, is_once = self._owner(key), False
            else:
                raise refusal
        raise StateUnavailable(f"{self}: sent {_ATTEMPTS} times, still refused: {refusal}; try again")

    def _owner(self, key: Argument | None) -> Connection:
        if key is None:
            node = next((node for node in self._nodes.values() if node.is_up), None)
        else:
            node = self._owners[slot_of(key)]
        if node is None:
            what = "no node is connected" if key is None or not self._nodes else f"slot {slot_of(key)} has no node"
            raise StateUnavailable(f"{self}: {what} ({self._reason}); try again")
        return node

    async def _redirected(self, to: Redirection) -> Connection:
        """The connected node that a redirection names."""
        endpoint = self._seeds.node(to.host, to.port)
        node = self._node(endpoint)
        if not to.is_once:
            self._seeds.prefer(endpoint)
            self._stale.set()
        await node.open()
        if not to.is_once:
            self._owners[to.slot] = node
        return node

    def _node(self, endpoint: Endpoint) -> Connection:
        if endpoint.address not in self._nodes:
            self._nodes[endpoint.address] = Connection(
                endpoint,
                name=self._name,
                scripts=self._scripts,
                on_lost=self._stale.set,
                patience=self._patience,
                durability=None if self._durability is None else self._durability(),
            )
        return self._nodes[endpoint.address]

    async def _keep(self) -> None:
        failures = 0
        while True:
            if all(node is not None and node.is_up for node in self._owners):
                failures = 0
                await self._stale.wait()
            # Also after a redirection: a slot that moves is followed by others.
            await asyncio.sleep(self._patience.pause_s(failures, self._jitter()))
            self._stale.clear()
            try:
                await self._refresh()
            except (OSError, StateError) as error:
                self._reason = str(error)
                if failures == 0:
                    _log.warning("state.cluster_incomplete", server=str(self), connection=self._name, reason=str(error))
            failures += 1

    async def _refresh(self) -> None:
        """Read the topology, connect to new primaries and let go of former ones. StateError when no node tells it, or
        when one of the primaries cannot be reached."""
        ranges = await self._seeds.read()
        primaries = {part.primary.address: self._node(part.primary) for part in ranges}
        opened = await asyncio.gather(*(node.open() for node in primaries.values()), return_exceptions=True)
        owners: list[Connection | None] = [None] * SLOTS
        for part in ranges:
            count = part.last - part.first + 1
            owners[part.first : part.last + 1] = [primaries[part.primary.address]] * count
        self._owners = owners
        # One with calls under way stays until the next reading, so that they come to their end.
        former = {at: node for at, node in self._nodes.items() if at not in primaries and node.is_idle}
        self._nodes = {at: node for at, node in self._nodes.items() if at not in former}
        await asyncio.gather(*(node.close() for node in former.values()))
        for outcome in opened:
            if isinstance(outcome, BaseException):
                raise outcome


async def _replies(node: Connection, commands: Sequence[Command], *, is_asking: bool) -> list[Any]:
    """The replies to commands that leave in one write, errors among them; ASKING lets in one command each."""
    calls = []
    for command in commands:
        if is_asking:
            calls.append(node.call(b"ASKING"))
        calls.append(node.call(*command))
    replies = await asyncio.gather(*calls, return_exceptions=True)
    return replies[1::2] if is_asking else replies
