"""`python -m chatflow_models.warmup`: answers /readyz and /metrics until SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys

import aiohttp
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.aiohttp import make_aiohttp_handler

from chatflow_models.warmup.settings import Settings, SettingsInvalid
from chatflow_models.warmup.warmer import Metrics, Warmer


async def serve(settings: Settings) -> None:
    """Warm, and answer probes, until told to stop."""
    registry, stop = CollectorRegistry(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None), trust_env=False) as session:
        warmer = Warmer(settings, session, Metrics(registry))

        async def ready(_: web.Request) -> web.Response:
            is_ready = warmer.state.is_ready
            said = "ready" if is_ready else warmer.state.reason or "the server's process has ended"
            return web.Response(text=f"{said}\n", status=200 if is_ready else 503)

        async def healthy(_: web.Request) -> web.Response:
            return web.Response(text="ok\n")

        app = web.Application()
        app.add_routes([web.get("/readyz", ready), web.get("/healthz", healthy)])
        app.router.add_get("/metrics", make_aiohttp_handler(registry))
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, settings.host, settings.port).start()
        work = asyncio.create_task(warmer.run())
        work.add_done_callback(lambda _: stop.set())
        await stop.wait()
        await runner.cleanup()
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work


def main() -> int:
    """Run the sidecar; 2 when its settings cannot be used."""
    try:
        settings = Settings.read(os.environ)
    except SettingsInvalid as error:
        sys.stderr.write(f"{error}\n")
        return 2
    asyncio.run(serve(settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
