"""A flow as processes on one machine: state server, models, small services, gateways, worker. Called by `up` and `ask`.

start: port and folder -> state server, Procfile, embedded model, and artefacts beside them -> worker -> gateways
change: content -> rebuilt and swapped in place; spec -> new gateway, then the old one ends; Procfile -> that process
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Self

from chatflow_cli.errors import CommandFailed
from chatflow_cli.local.artefacts import Artefacts
from chatflow_cli.local.children import Command
from chatflow_cli.local.console import Console
from chatflow_cli.local.data_folder import DataFolder, write_whole
from chatflow_cli.local.embedded_model import model_part
from chatflow_cli.local.fleet import Fleet
from chatflow_cli.local.kept import Kept, Part, listens
from chatflow_cli.local.objects import lay_out
from chatflow_cli.local.preparation import EMBEDDED, Options, Prepared, prepare
from chatflow_cli.local.procfile import host_aliases, shell_arguments
from chatflow_cli.local.sockets import HeldPort, free_port, reachable
from chatflow_cli.local.state_server import StateServer, check_state_server

_SERVICE_READY_S = 20.0


class Stack:
    """One running flow. Use it as an async context manager; everything it started has ended when the context ends."""

    def __init__(self, options: Options, console: Console) -> None:
        self._options = options
        self._console = console
        self._closing = AsyncExitStack()
        self._embedded_port = free_port() if options.llm == EMBEDDED else None
        self._services: dict[str, tuple[str, int, Kept]] = {}
        self._environment: dict[str, str] = {}
        self._redis_url = ""
        self._remarked: set[str] = set()
        self.url = ""

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException as error:
            await self._closing.aclose()
            if isinstance(error, BaseExceptionGroup):
                raise _first(error) from None
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._closing.aclose()

    @property
    def prepared(self) -> Prepared:
        """What runs at the moment."""
        return self._prepared

    @property
    def admin_url(self) -> str:
        """Where the first gateway tells its health and metrics."""
        return self._fleet.admin_url

    async def _start(self) -> None:
        options = self._options
        self._prepared = prepare(options, self._embedded_port)
        self._remark(self._prepared)
        given = options.redis_url or self._prepared.redis_url()
        if given is not None:
            await check_state_server(given)
        self._port = HeldPort(options.host, options.port)
        self._closing.callback(self._port.release)
        self._folder = self._opened_folder()
        self._artefacts = Artefacts(self._folder.artefacts, self._console, options.artefact_cache)
        self._lay_out(self._prepared)
        admin_port = HeldPort(options.host, options.admin_port, "--admin-port")
        self._closing.callback(admin_port.release)
        self._fleet = Fleet(self._port, admin_port, options.host, options.gateways, self._console)
        async with asyncio.TaskGroup() as group:
            building = group.create_task(self._artefacts.build(self._prepared))
            await self._start_surroundings()
            self._configure(self._prepared)
            self._closing.push_async_callback(self._fleet.stop)
            group.create_task(self._fleet.start_worker(self._environment))
            await building
            self._console.say("starting the gateway: it loads its models and answers one question to itself")
            drain_s = self._prepared.served.gateway.drain_s
            group.create_task(self._fleet.start_gateways(self._environment, drain_s))
        shown = reachable(options.host)
        self.url = f"http://{f'[{shown}]' if ':' in shown else shown}:{self._port.number}"
        self._folder.announce(self.url, self._fleet.admin_url)

    def _remark(self, prepared: Prepared) -> None:
        """Say what of the manifest does not run here, each once."""
        for remark in prepared.remarks:
            if remark not in self._remarked:
                self._console.remark(remark)
        self._remarked = set(prepared.remarks)

    def _opened_folder(self) -> DataFolder:
        data = self._options.data
        flow = self._prepared.flow.metadata
        folder = DataFolder.temporary() if data is None else DataFolder.below(data, flow)
        folder.open()
        self._closing.callback(folder.close)
        return folder

    async def _start_surroundings(self) -> None:
        """Everything that a gateway talks to."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._start_state())
            group.create_task(self._start_services(self._prepared.procfile))
            group.create_task(self._start_embedded())

    async def _start_state(self) -> None:
        given = self._options.redis_url or self._prepared.redis_url()
        if given is not None:
            self._redis_url = given
            return
        server = await StateServer.start(self._folder.redis, self._console, is_durable=self._options.data is not None)
        self._closing.push_async_callback(server.stop)
        self._redis_url = server.url
        self._console.say(f"state server is ready ({Path(server.program).name})")

    async def _start_embedded(self) -> None:
        if self._embedded_port is not None:
            part = model_part(self._embedded_port)
            self._console.say("starting the embedded language model (SmolLM2-135M, English)")
            kept = await Kept.start(part, self._console)
            self._closing.push_async_callback(kept.stop)

    async def _start_services(self, procfile: Mapping[str, str]) -> None:
        self._closing.push_async_callback(self._stop_services)
        async with asyncio.TaskGroup() as group:
            for name, command in procfile.items():
                group.create_task(self._start_service(name, command))

    async def _start_service(self, name: str, command: str) -> None:
        port = free_port()
        part = self._service_part(name, command, port)
        self._services[name] = (command, port, await Kept.start(part, self._console))
        self._console.say(f"{name} is ready on 127.0.0.1:{port}")

    def _service_part(self, name: str, command: str, port: int) -> Part:
        environment = {"PORT": str(port), "HOST": "127.0.0.1"}
        folder = self._prepared.files.folder.resolve()
        made = Command(name, shell_arguments(command), environment, folder)
        return Part(made, partial(listens, "127.0.0.1", port), _SERVICE_READY_S)

    async def _stop_services(self) -> None:
        await asyncio.gather(*(kept.stop() for _, _, kept in self._services.values()))

    def _lay_out(self, prepared: Prepared) -> bool:
        """Write ConfigMaps and Secrets; True when Secrets changed, which a gateway reads as it starts."""
        lay_out(prepared.files.objects.configmaps, self._folder.configmaps, is_private=False)
        return bool(lay_out(prepared.secrets, self._folder.secrets, is_private=True))

    def _configure(self, prepared: Prepared) -> bool:
        """Write runtime.json and set the environment; True when a gateway has to start anew to follow."""
        text = prepared.served.model_dump_json(indent=2)
        path = self._folder.config.resolve()
        is_new = not path.is_file() or path.read_text(encoding="utf-8") != text
        write_whole(path, text)
        ports = {name: port for name, (_, port, _) in self._services.items()}
        environment = {
            "CHATFLOW_CONFIG": str(path),
            "CHATFLOW_REDIS_URL": self._redis_url,
            "CHATFLOW_SECRETS_DIR": str(self._folder.secrets.resolve()),
            "CHATFLOW_CONFIGMAPS_DIR": str(self._folder.configmaps.resolve()),
            "CHATFLOW_ARTEFACTS_DIR": str(self._artefacts.folder.path.resolve()),
            "CHATFLOW_SINK_DIR": str(self._folder.records.resolve()),
            "CHATFLOW_HOST_ALIASES": host_aliases(ports, prepared.urls()),
            "CHATFLOW_LOG_FORMAT": "console",
        }
        is_new = is_new or environment != self._environment
        self._environment = environment
        return is_new

    async def reload(self) -> bool:
        """Follow a change of the manifest or its files; False when nothing changed.

        CommandFailed when the change cannot be taken over; what ran before keeps running.
        """
        prepared = await asyncio.to_thread(prepare, self._options, self._embedded_port)
        changed = await self._artefacts.build(prepared)
        changed |= await self._follow_procfile(prepared.procfile)
        must_roll = self._lay_out(prepared)
        before = self._folder.config.read_text(encoding="utf-8"), self._environment
        must_roll |= self._configure(prepared)
        if must_roll:
            self._console.say("the spec changed: starting a new gateway, then the old one ends")
            try:
                await self._fleet.roll(self._environment, prepared.served.gateway.drain_s)
            except CommandFailed:
                # A restart must find what the running gateways were started with.
                write_whole(self._folder.config, before[0])
                self._environment = before[1]
                raise
        self._prepared = prepared
        self._remark(prepared)
        return changed or must_roll

    async def _follow_procfile(self, procfile: Mapping[str, str]) -> bool:
        changed = False
        for name in [name for name in self._services if name not in procfile]:
            await self._services.pop(name)[2].stop()
            changed = True
        for name, command in procfile.items():
            if name not in self._services:
                await self._start_service(name, command)
                changed = True
            elif self._services[name][0] != command:
                _, port, kept = self._services[name]
                self._console.say(f"{name}: its command changed, restarting it")
                await kept.restart(self._service_part(name, command, port))
                self._services[name] = (command, port, kept)
                changed = True
        return changed


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure to show: the first of ours, else the first of all."""
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves.append(_first(error) if isinstance(error, BaseExceptionGroup) else error)
    return next((error for error in leaves if isinstance(error, CommandFailed)), leaves[0])
