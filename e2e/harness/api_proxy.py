"""A proxy in front of a real API server that makes faults: refusals, lost answers, cut and silent watches.

It runs in a thread of the test, on loopback and without TLS towards the client; upstream it uses the kubeconfig's
client certificate. Only requests of the one client under test pass through it.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import yaml
from aiohttp import ClientSession, ClientTimeout, TCPConnector, web

HOP_HEADERS = frozenset({"connection", "transfer-encoding", "content-length", "content-encoding", "host"})


class Fault(StrEnum):
    """What happens to a request."""

    TOO_MANY = "429"
    CONFLICT = "409"
    BROKEN = "500"
    LOST = "lost"
    """It is not passed on, and the connection is closed."""
    ANSWER_LOST = "answer lost"
    """It takes effect, and the connection is closed."""
    LATE = "late"
    """It takes effect, and nothing comes back until the client gives up."""


@dataclass
class ApiProxy:
    """One proxy. `choose` is asked about every request that is no watch: (method, path) -> a fault, or None."""

    url: str = ""
    choose: Callable[[str, str], Fault | None] = lambda _method, _path: None
    injected: list[tuple[Fault, str, str]] = field(default_factory=list)
    is_silent: bool = False
    """Watches stay open and tell nothing, bookmarks included."""
    watches: int = 0
    """How many watches have begun."""
    cut: Callable[[], object] = lambda: None
    """Have all open watches cut, also those that tell nothing."""

    def kubeconfig(self, folder: Path) -> Path:
        """A kubeconfig that leads here."""
        entry = {"name": "proxy"}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{**entry, "cluster": {"server": self.url}}],
            "users": [{**entry, "user": {"token": "the-proxy-knows-who-it-is"}}],
            "contexts": [{**entry, "context": {"cluster": "proxy", "user": "proxy"}}],
            "current-context": "proxy",
        }
        path = folder / "proxy.kubeconfig"
        path.write_text(yaml.safe_dump(content))
        return path


@contextmanager
def api_proxy(kubeconfig: Path) -> Iterator[ApiProxy]:
    """A proxy in front of the kubeconfig's cluster, while the context lasts."""
    proxy = ApiProxy()
    loop = asyncio.new_event_loop()
    ready, stop = threading.Event(), asyncio.Event()
    watches: set[asyncio.Transport] = set()
    proxy.cut = lambda: loop.call_soon_threadsafe(_hang_up_all, watches)

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(_serve(proxy, kubeconfig, watches, ready, stop))

    thread = threading.Thread(target=run, name="api proxy", daemon=True)
    thread.start()
    try:
        assert ready.wait(10), "the proxy did not start"
        yield proxy
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)


def upstream_of(kubeconfig: Path) -> tuple[str, ssl.SSLContext]:
    """URL and TLS context of a kubeconfig's cluster."""
    content = yaml.safe_load(kubeconfig.read_text())
    cluster, user = content["clusters"][0]["cluster"], content["users"][0]["user"]

    def pem(part: dict[str, str], name: str) -> str:
        if f"{name}-data" in part:
            return base64.b64decode(part[f"{name}-data"]).decode()
        return Path(part[name]).read_text()

    context = ssl.create_default_context(cadata=pem(cluster, "certificate-authority"))
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as pair:
        pair.write(pem(user, "client-certificate") + pem(user, "client-key"))
        pair.flush()
        context.load_cert_chain(pair.name)
    return cluster["server"], context


async def _serve(
    proxy: ApiProxy, kubeconfig: Path, watches: set[asyncio.Transport], ready: threading.Event, stop: asyncio.Event
) -> None:
    upstream, context = upstream_of(kubeconfig)
    connector = TCPConnector(ssl=context, limit=0)
    async with ClientSession(connector=connector, timeout=ClientTimeout(total=None), auto_decompress=False) as session:

        async def handle(request: web.Request) -> web.StreamResponse:
            if request.query.get("watch") == "true":
                transport = request.transport
                assert transport is not None
                watches.add(transport)
                try:
                    return await _watch(proxy, session, upstream, request)
                finally:
                    watches.discard(transport)
            return await _pass(proxy, session, upstream, request)

        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        assert site._server is not None
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        proxy.url = f"http://127.0.0.1:{port}"
        ready.set()
        await stop.wait()
        await runner.cleanup()


async def _pass(proxy: ApiProxy, session: ClientSession, upstream: str, request: web.Request) -> web.StreamResponse:
    fault = proxy.choose(request.method, request.path)
    if fault is not None:
        proxy.injected.append((fault, request.method, request.path))
    if fault in (Fault.TOO_MANY, Fault.CONFLICT, Fault.BROKEN):
        return _refusal(int(fault.value))
    if fault is Fault.LOST:
        return _hang_up(request)
    body = await request.read()
    headers = {
        name: value for name, value in request.headers.items() if name.lower() not in (*HOP_HEADERS, "authorization")
    }
    async with session.request(
        request.method, f"{upstream}{request.path_qs}", data=body or None, headers=headers
    ) as answer:
        data = await answer.read()
        if fault is Fault.ANSWER_LOST:
            return _hang_up(request)
        if fault is Fault.LATE:
            await asyncio.sleep(3600)
        kept = {
            name: value
            for name, value in answer.headers.items()
            if name.lower() not in HOP_HEADERS - {"content-encoding"}
        }
        return web.Response(status=answer.status, body=data, headers=kept)


async def _watch(proxy: ApiProxy, session: ClientSession, upstream: str, request: web.Request) -> web.StreamResponse:
    proxy.watches += 1
    headers = {"Accept": request.headers.get("Accept", "application/json")}
    async with session.get(f"{upstream}{request.path_qs}", headers=headers) as answer:
        response = web.StreamResponse(status=answer.status, headers={"Content-Type": "application/json"})
        await response.prepare(request)
        is_mute = False
        async for line in answer.content:
            # A watch that has fallen silent stays so, as behind a broken middlebox; a new one works again.
            is_mute = is_mute or proxy.is_silent
            if not is_mute:
                await response.write(line)
        return response


def _refusal(status: int) -> web.Response:
    reasons = {429: "TooManyRequests", 409: "Conflict", 500: "InternalError"}
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reasons[status], "code": status}
    return web.json_response({**body, "message": "injected"}, status=status, headers={"Retry-After": "1"})


def _hang_up_all(transports: set[asyncio.Transport]) -> None:
    for transport in transports:
        transport.abort()


def _hang_up(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response(status=500)
