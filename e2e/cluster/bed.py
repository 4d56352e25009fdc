"""A test bed: brought up, repaired, taken down. Every step looks at what is there and starts only what is missing."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path

from . import dns, prerequisites, volumes
from .addons import ADDONS, Addon, AddonContext
from .control_plane import Address, ApiProbe, ControlPlane, Programs
from .errors import BedError, NotReady
from .images import Images, tag
from .kubectl import Kubectl, KubectlFailed
from .layout import REPOSITORY, Layout, marked_environment, user_environment
from .namespaces import HOLDER, NODE_IP, Namespaces
from .node import Node, NodePrograms, queue_new_connections
from .processes import Component, Processes, wait_until
from .toolchain import FAMILIES, Toolchain

CONTROL_PLANE_FAMILIES = ("kubernetes", "etcd")
NODE_FAMILIES = (*CONTROL_PLANE_FAMILIES, "pause", "containerd", "cni", "coredns", "local-path", "network-policies")
NODE_IMAGES = ("pause", "busybox", "coredns")
API_PORT = 6443


class Mode(StrEnum):
    """What a bed runs."""

    CONTROL_PLANE = "control-plane"
    NODE = "node"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a bed was brought up with, kept beside its data."""

    mode: Mode
    api_port: int
    """On this machine's loopback."""
    ports: tuple[int, ...] = ()
    """Further loopback ports of a control plane without namespaces of its own."""
    forwards: tuple[tuple[str, int, int], ...] = ()
    """What addons offer to this machine: name, port here, port inside."""
    addons: tuple[str, ...] = ()


class Bed:
    """One bed, by its layout."""

    def __init__(self, layout: Layout, say: Callable[[str], None]) -> None:
        self.layout, self._say = layout, say
        self.tools = Toolchain(layout, say)
        self.images = Images(layout, self.tools, say)
        self.processes = Processes(layout.run, layout.logs)

    # What a bed is

    def settings(self) -> Settings | None:
        """What it was brought up with; None when it is down."""
        try:
            stored = json.loads((self.layout.state / "bed.json").read_text())
        except FileNotFoundError:
            return None
        return Settings(
            Mode(stored["mode"]),
            stored["api_port"],
            tuple(stored["ports"]),
            tuple((name, here, inside) for name, here, inside in stored["forwards"]),
            tuple(stored["addons"]),
        )

    def kubectl(self) -> Kubectl:
        """kubectl of the bed's own version, as its administrator, from this machine."""
        return Kubectl(self.tools.folder("kubernetes") / "kubectl", self.layout.kubeconfig)

    def namespaces(self) -> Namespaces:
        """The node's namespaces."""
        return Namespaces(self.layout, self.processes)

    # Up and down

    @contextlib.contextmanager
    def exclusively(self) -> Iterator[None]:
        """Hold the folder of all beds, so that two commands that start or end processes follow each other."""
        parent = self.layout.state.parent
        parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(parent, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def up(self, mode: Mode | None = None) -> Settings:
        """Bring everything up that is not; BedError says what is missing or would not start."""
        current = self.settings()
        if current is not None and mode is not None and current.mode is not mode:
            raise BedError(f"bed {self.layout.name!r} is up as {current.mode}; take it down first, or use --name")
        mode = mode or (current.mode if current else Mode.NODE)
        prerequisites.check(node=mode is Mode.NODE)
        settings = current or _new_settings(mode)
        self._prepare(mode)
        self.layout.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._keep(settings)
        probe, node = self._start_control_plane(settings)
        if node is not None:
            self._start_node(probe, node)
        for name, _, inside in settings.forwards:
            self.forward(name, inside)
        for name in settings.addons:
            if not self._is_addon_whole(name):
                self.addon(name)
        ended = [name for name in self.processes.names() if self.processes.alive(name) is None]
        if ended:
            raise NotReady(f"{', '.join(ended)} ended after the start; see `logs {ended[0]}`, then `up` again")
        return settings

    def down(self) -> None:
        """End everything and remove the bed's state; the cache stays. A bed that is not there is no error."""
        names = [name for name in self.processes.names() if name != HOLDER]
        trouble: NotReady | None = None
        try:
            self.namespaces().close()
        except NotReady as error:
            trouble = error
        with ThreadPoolExecutor(max_workers=max(1, len(names))) as pool:
            list(pool.map(self.processes.stop, names))
        if trouble is not None:
            raise trouble
        if self.layout.state.exists():
            shutil.rmtree(self.layout.state)

    # Parts that come later

    def addon(self, name: str) -> None:
        """Install addon `name`, or repair it, and wait until it is healthy."""
        addon = ADDONS.get(name)
        if addon is None:
            raise BedError(f"no addon {name!r}; there are {', '.join(sorted(ADDONS))}")
        settings = self.settings()
        if settings is None or settings.mode is not Mode.NODE:
            raise BedError(f"addon {name} needs a bed with a node; run `up` first")
        context = self._addon_context()
        begin = time.monotonic()
        addon.prepare(context)
        for component in addon.components(context):
            self._start(component, self.namespaces().prefix)
            self.processes.await_ready(component)
        addon.configure(context)
        if not wait_until(lambda: _is_healthy(addon, context), addon.deadline_s):
            raise NotReady(f"addon {name} is installed but not healthy after {addon.deadline_s:.0f} s; see `logs`")
        self._enable(addon)
        self._say(f"addon {name} healthy in {time.monotonic() - begin:.1f} s")

    def load_image(self, name: str) -> str:
        """Give the node an image, one of the bed's own by name or an archive by path; returns the image's name."""
        node = self._node()
        if name.endswith(".tar"):
            before = set(node.images())
            node.import_image(Path(name))
            return next(iter(sorted(set(node.images()) - before)), name)
        self._import(node, name)
        return tag(name)

    def forward(self, name: str, port_inside: int) -> int:
        """A port on this machine's loopback that leads to `port_inside` of the node's loopback."""
        settings = self.settings()
        assert settings is not None
        known = {forwarded: here for forwarded, here, _ in settings.forwards}
        here = self._start_forward(f"forward-{name}", known.get(name, 0), port_inside)
        if known.get(name) != here:
            others = tuple(entry for entry in settings.forwards if entry[0] != name)
            self._keep(replace(settings, forwards=(*others, (name, here, port_inside))))
        return here

    def build(self, images: Sequence[str], *, with_addons: bool) -> None:
        """Fill the cache: the tools of a node, those of the addons on request, and `images`."""
        for family in (*FAMILIES,) if with_addons else NODE_FAMILIES:
            self.tools.folder(family)
        for image in (*NODE_IMAGES, *images):
            self.images.archive(image)

    # Steps

    def _prepare(self, mode: Mode) -> None:
        """Build what the mode needs, before anything runs."""
        if mode is Mode.NODE:
            self.build((), with_addons=False)
        else:
            for family in CONTROL_PLANE_FAMILIES:
                self.tools.folder(family)

    def _start_control_plane(self, settings: Settings) -> tuple[ApiProbe, Node | None]:
        is_node = settings.mode is Mode.NODE
        prefix: tuple[str, ...] = ()
        if is_node:
            namespaces = self.namespaces()
            if namespaces.open(self.tools.folder("pause") / "pause"):
                self._say(f"namespaces open in {self.layout.state}")
            prefix = namespaces.prefix
        plane = self._plane(settings)
        node = self._node() if is_node else None
        containerd = None if node is None else node.containerd()
        if containerd is not None:
            self._start(containerd, prefix)
        here = self._start_forward("forward-api", settings.api_port, API_PORT) if is_node else settings.api_port
        if here != settings.api_port:
            self._keep(replace(settings, api_port=here))
        url = f"https://127.0.0.1:{here}"
        plane.authority.kubeconfig(self.layout.kubeconfig, url, plane.admin)
        probe = ApiProbe(url, plane.authority.root.certificate, plane.admin)
        etcd, api_server, *others = plane.components(probe)
        for component in (etcd, api_server):
            self._start(component, prefix)
        self._await(api_server)
        for component in others:
            self._start(component, prefix)
        if containerd is not None:
            self._await(containerd)
        for component in others:
            self._await(component)
        return probe, node

    def _start_node(self, probe: ApiProbe, node: Node) -> None:
        namespaces = self.namespaces()
        for image in NODE_IMAGES:
            self._import(node, image)
        queue_new_connections(namespaces)
        components = node.components(probe)
        for component in components:
            self._start(component, namespaces.prefix)
        self.kubectl().apply(*dns.manifests(), *volumes.manifests())
        for component in components:
            self._await(component)

    def _is_addon_whole(self, name: str) -> bool:
        """Whether an addon's processes run as they would be started now, and do their work."""
        addon, context = ADDONS[name], self._addon_context()
        for component in addon.components(context):
            running = self.processes.alive(component.name)
            if running is None or running.command != component.command:
                return False
        return _is_healthy(addon, context)

    def _import(self, node: Node, name: str) -> None:
        """Import an image of the bed's own unless the node has it as it would be built now."""
        archive, imported = self.images.archive(name), self.layout.state / "imported" / name
        if imported.exists() and imported.read_text() == archive.name and tag(name) in node.images():
            return
        node.import_image(archive)
        imported.parent.mkdir(exist_ok=True)
        imported.write_text(archive.name)

    def _start(self, component: Component, prefix: tuple[str, ...]) -> None:
        self.processes.start(component, prefix)

    def _await(self, component: Component) -> None:
        begin = time.monotonic()
        self.processes.await_ready(component)
        waited = time.monotonic() - begin
        if waited > 1:
            self._say(f"{component.name} ready after {waited:.1f} s")

    def _start_forward(self, name: str, port: int, port_inside: int) -> int:
        """Carry connections from loopback `port` (0: any) to `port_inside`; the port in use is returned."""
        running = self.processes.alive(name)
        if running is not None:
            return port
        listener = _listen(port)
        try:
            command = (
                sys.executable,
                "-m",
                "e2e.cluster.forward",
                str(listener.fileno()),
                "127.0.0.1",
                str(port_inside),
            )
            environment = {**marked_environment(self.layout), "PYTHONPATH": str(REPOSITORY)}
            component = Component(name, command, environment, lambda: True, pass_fds=(listener.fileno(),))
            self.processes.start(component, self.namespaces().prefix)
            here: int = listener.getsockname()[1]
        finally:
            listener.close()
        return here

    def _plane(self, settings: Settings) -> ControlPlane:
        if settings.mode is Mode.NODE:
            address = Address("0.0.0.0", NODE_IP, API_PORT, 2379, 2380, 10257, 10259)  # noqa: S104 - the bed's own network
        else:
            address = Address("127.0.0.1", "127.0.0.1", settings.api_port, *settings.ports)
        programs = Programs(self.tools.folder("kubernetes"), self.tools.folder("etcd"))
        return ControlPlane(self.layout, address, programs, self._environment())

    def _node(self) -> Node:
        settings = self.settings()
        if settings is None or settings.mode is not Mode.NODE:
            raise BedError(f"bed {self.layout.name!r} has no node; run `up` first")
        programs = NodePrograms(
            *(self.tools.folder(name) for name in ("kubernetes", "containerd", "cni", "local-path", "network-policies"))
        )
        return Node(self.layout, self._plane(settings), programs, self._environment())

    def _environment(self) -> dict[str, str]:
        return user_environment(self.layout, self.tools.folder("containerd"))

    def _addon_context(self) -> AddonContext:
        settings = self.settings()
        assert settings is not None
        return AddonContext(
            self.layout,
            self.tools,
            self._plane(settings),
            self.kubectl(),
            self._environment(),
            self.forward,
            self.namespaces(),
        )

    def _enable(self, addon: Addon) -> None:
        settings = self.settings()
        assert settings is not None
        if addon.name not in settings.addons:
            self._keep(replace(settings, addons=(*settings.addons, addon.name)))

    def _keep(self, settings: Settings) -> None:
        new = self.layout.state / "bed.json.new"
        new.write_text(json.dumps(asdict(settings)))
        new.replace(self.layout.state / "bed.json")


def _is_healthy(addon: Addon, context: AddonContext) -> bool:
    """An addon's own word; an API that does not answer is no health."""
    try:
        return addon.is_healthy(context)
    except KubectlFailed:
        return False


def _new_settings(mode: Mode) -> Settings:
    if mode is Mode.NODE:
        return Settings(mode, _free_ports(1)[0])
    api_port, *others = _free_ports(5)
    return Settings(mode, api_port, tuple(others))


def _free_ports(count: int) -> Sequence[int]:
    listeners = [_listen(0) for _ in range(count)]
    try:
        return [listener.getsockname()[1] for listener in listeners]
    finally:
        for listener in listeners:
            listener.close()


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port), backlog=128)
    except OSError:
        if port == 0:
            raise
        # Another program took the port meanwhile: any other will do, and the kubeconfig is written anew.
        return socket.create_server(("127.0.0.1", 0), backlog=128)
