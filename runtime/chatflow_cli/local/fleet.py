"""The gateways and the worker of a flow, as processes `python -m chatflow_runtime`. Called by `stack`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from functools import partial

from chatflow_cli.local.children import Command
from chatflow_cli.local.console import Console
from chatflow_cli.local.kept import Kept, Part, answers_ok
from chatflow_cli.local.sockets import HeldPort, free_port, reachable

_GRACE_S = 5.0
"""Beyond the time that a gateway takes for the turns under way once it is told to end."""
_READY_S = 120.0
"""A gateway loads its models and runs one real turn before it is ready."""


class Fleet:
    """All gateways share one port; the kernel spreads connections over them. So do the first gateway and the one that
    replaces it with the admin port that users see; each has an admin port of its own besides, to be watched by."""

    def __init__(self, port: HeldPort, admin_port: HeldPort, host: str, count: int, console: Console) -> None:
        self._port = port
        self._host = host
        self._probed_host = reachable(host)
        self._count = count
        self._admin_port = admin_port
        self._console = console
        self._gateways: dict[int, Kept] = {}
        self._worker: Kept | None = None
        self.admin_url = f"http://{self._probed_host}:{admin_port.number}"

    async def start_worker(self, environment: Mapping[str, str]) -> None:
        """Start the worker, which needs no artefacts; PartFailed when it does not come up."""
        self._worker = await Kept.start(self._part("worker", environment, free_port(self._host)), self._console)

    async def start_gateways(self, environment: Mapping[str, str], drain_s: float) -> None:
        """Start all gateways at once; PartFailed when one of them does not come up. `drain_s`: how long they take for
        the turns under way once they are told to end."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._count):
                group.create_task(self._start_gateway(number, environment, drain_s))

    async def roll(self, environment: Mapping[str, str], drain_s: float) -> None:
        """Replace one after the other: the new one is ready before the old one is told to end."""
        for number, kept in sorted(self._gateways.items()):
            await kept.replace(self._gateway_part(number, environment, drain_s))
        if self._worker is not None:
            await self._worker.replace(self._part("worker", environment, free_port(self._host)))

    async def stop(self) -> None:
        """End the gateways, which finish the turns under way, then the worker."""
        await asyncio.gather(*(kept.stop() for kept in self._gateways.values()))
        if self._worker is not None:
            await self._worker.stop()

    async def _start_gateway(self, number: int, environment: Mapping[str, str], drain_s: float) -> None:
        self._gateways[number] = await Kept.start(self._gateway_part(number, environment, drain_s), self._console)

    def _gateway_part(self, number: int, environment: Mapping[str, str], drain_s: float) -> Part:
        name = "gateway" if self._count == 1 else f"gateway.{number + 1}"
        # All that a gateway needs is there by now; what is away, a language model say, is not worth waiting for.
        own = {"CHATFLOW_STARTUP_DEADLINE_S": "0"}
        if number == 0:
            own["CHATFLOW_SHARED_ADMIN_PORT"] = str(self._admin_port.number)
        return self._part("gateway", {**environment, **own}, free_port(self._host), name, drain_s)

    def _part(
        self, role: str, environment: Mapping[str, str], admin_port: int, name: str = "", drain_s: float = 30.0
    ) -> Part:
        own = {
            "CHATFLOW_HOST": self._host,
            "CHATFLOW_PORT": str(self._port.number),
            "CHATFLOW_REUSE_PORT": "1",
            "CHATFLOW_ADMIN_PORT": str(admin_port),
        }
        arguments = [sys.executable, "-m", "chatflow_runtime", "--role", role]
        command = Command(name or role, arguments, {**environment, **own}, grace_s=drain_s + _GRACE_S)
        return Part(command, partial(answers_ok, self._probed_host, admin_port, "/readyz"), _READY_S)
