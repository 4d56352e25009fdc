"""A process's servers, connections and background work, each for as long as a context lasts. Used by `bootstrap`."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

import uvicorn
from starlette.types import ASGIApp

from chatflow_runtime.errors import StateUnavailable
from chatflow_runtime.settings import Settings, SettingsInvalid
from chatflow_runtime.state.link import Link
from chatflow_runtime.state.wakeups import Wakeups, WorkBell
from chatflow_runtime.web.server import server_config

ADMIN_DRAIN_S = 1
MOST_FILES = 65_536


def allow_files() -> None:
    """Let this process open as many files as it may, up to 65,536: many systems begin with 1,024 for the sake of
    programs that use select(), and each client takes one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        # macOS names no hard limit and has one of its own.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


async def unless(stop: asyncio.Event, work: Coroutine[object, object, None]) -> bool:
    """Whether the work came to its end before the process was told to stop; it is cancelled then."""
    working, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
        return working.done()
    finally:
        for task in (working, stopping):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@contextlib.asynccontextmanager
async def opened(*connections: Link | Wakeups | WorkBell) -> AsyncIterator[None]:
    """Connections that have tried once, and go on trying where that failed, until the context ends."""
    try:
        for outcome in await asyncio.gather(*(each.open() for each in connections), return_exceptions=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, StateUnavailable):
                raise outcome
        yield
    finally:
        for each in reversed(connections):
            await each.close()


@contextlib.asynccontextmanager
async def serving(
    app: ASGIApp, host: str, port: int, settings: Settings, stop: asyncio.Event, drain_s: int = ADMIN_DRAIN_S
) -> AsyncIterator[None]:
    """Serve an application while the context lasts; at its end turns under way finish within `drain_s`."""
    server = _Server(server_config(app, host, port, drain_s=drain_s))
    with _listener(host, port, reuse_port=settings.reuse_port) as listener:
        async with background(server.serve(sockets=[listener]), stop, on_exit=server.leave):
            yield


@contextlib.asynccontextmanager
async def background(
    work: Coroutine[object, object, None], stop: asyncio.Event, on_exit: Callable[[], None] | None = None
) -> AsyncIterator[None]:
    """Run something beside the context. Its failure stops the process; at the end it is told to leave, or cancelled."""
    task = asyncio.create_task(work)
    task.add_done_callback(lambda _: stop.set())
    try:
        yield
    finally:
        if on_exit is None:
            task.cancel()
        else:
            on_exit()
        with contextlib.suppress(asyncio.CancelledError):
            await task


class _Server(uvicorn.Server):
    """One of several servers in a process: signals are the process's own matter."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield

    def leave(self) -> None:
        """Stop accepting, and end once the requests under way are answered."""
        self.should_exit = True


@contextlib.contextmanager
def _listener(host: str, port: int, *, reuse_port: bool) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            listener.bind((host, port))
            # The server's task comes to this later: until then the kernel would refuse whoever saw that we are ready.
            listener.listen()
        except OSError as error:
            raise SettingsInvalid(
                f"port {port} on {host} cannot be opened ({error.strerror}); end what holds it, or choose another"
            ) from error
        yield listener


def stop_event() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop
