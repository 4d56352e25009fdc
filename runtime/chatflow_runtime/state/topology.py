"""Which node of a cluster serves which slot. Used by `cluster`, and by `connection` where any node will do.

Specification: https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/
"""

from __future__ import annotations

import binascii
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from chatflow_runtime.errors import StateError, StateUnavailable
from chatflow_runtime.state.endpoint import Endpoint
from chatflow_runtime.state.wire import Argument, Wire

SLOTS = 16384
_ASK_S = 1.0
"""For the answer of one node; the next one is asked then."""


def slot_of(key: Argument) -> int:
    """The slot of a key: CRC-16/XMODEM of its hash tag, or of all of it, modulo 16384."""
    text = key if isinstance(key, bytes) else str(key).encode()
    begin = text.find(b"{") + 1
    end = text.find(b"}", begin) if begin else 0
    return binascii.crc_hqx(text[begin:end] if end > begin else text, 0) % SLOTS


@dataclass(frozen=True, slots=True)
class SlotRange:
    """The slots from `first` to `last`, both served by one primary."""

    first: int
    last: int
    primary: Endpoint


class Seeds:
    """The Site of any live node of a cluster, and where its topology is read. Beside the URL's nodes, those that the
    cluster named last are asked, so that the URL's may go one day."""

    def __init__(self, nodes: Sequence[Endpoint]) -> None:
        self._given = tuple(nodes)
        self._nodes = deque(nodes)
        scheme = "redis" if nodes[0].tls is None else "rediss"
        self._shown = f"{scheme}+cluster://{','.join(node.address for node in nodes)}"

    def __str__(self) -> str:
        return self._shown

    def node(self, host: str, port: int) -> Endpoint:
        """A node by its address."""
        return replace(self._given[0], host=host, port=port)

    def prefer(self, node: Endpoint) -> None:
        """Ask this node next, for it knows most."""
        self._nodes = deque((node, *(other for other in self._nodes if other != node)))

    async def find(self) -> Endpoint:
        """A node that answers and is in touch with the cluster: else no wake-up would reach it."""
        return (await self._read())[0]

    async def check(self, wire: Wire) -> None:
        """Any node is the right one."""

    async def has_moved(self, _wire: Wire) -> bool:
        """Never: a node that leaves closes its connections."""
        return False

    async def read(self) -> list[SlotRange]:
        """The topology, from the first node that answers and is in touch with the cluster."""
        return (await self._read())[1]

    async def _read(self) -> tuple[Endpoint, list[SlotRange]]:
        """A node that is in touch with the cluster, and the topology. Every search begins with another node."""
        problems = []
        for _ in range(len(self._nodes)):
            node = self._nodes[0]
            self._nodes.rotate(-1)
            try:
                info, rows = await node.ask(("CLUSTER", "INFO"), ("CLUSTER", "SLOTS"), timeout_s=_ASK_S)
                ranges = [_range(row, node) for row in rows]
            except (OSError, StateError, ValueError) as error:
                problems.append(f"{node.address}: {str(error) or type(error).__name__}")
                continue
            if b"cluster_state:ok" in info:
                self._learn(part.primary for part in ranges)
                return node, ranges
            problems.append(f"{node.address} has lost touch with its cluster, or slots are not served (CLUSTER INFO)")
        raise StateUnavailable(f"no node of the cluster can be asked: {'; '.join(problems)}")

    def _learn(self, nodes: Iterable[Endpoint]) -> None:
        known = dict.fromkeys((*nodes, *self._given))
        if known.keys() != set(self._nodes):
            self._nodes = deque(known)


def _range(row: list[Any], asked: Endpoint) -> SlotRange:
    """A row of CLUSTER SLOTS: first and last slot, then the primary before its replicas, each with host and port. A
    node that does not know how it is reached gives no host: it is the asked one's."""
    first, last, (host, port, *_), *_ = row
    return SlotRange(first, last, replace(asked, host=host.decode() if host else asked.host, port=port))
