"""Whom `ask` and `chat` talk to: a URL, the `up` of a manifest that runs already, or one started for this question."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chatflow_cli.client import GatewayClient


@contextmanager
def gateway(target: str, data: Path, token: str | None = None) -> Iterator[GatewayClient]:
    """A client of the target while the context lasts; a flow that was started for it has ended afterwards."""
    if target.startswith(("http://", "https://")):
        yield GatewayClient(target, token)
        return
    from chatflow_cli.local.data_folder import DataFolder
    from chatflow_cli.local.manifest_file import load

    folder = DataFolder.below(data, load(Path(target)).flow.metadata)
    running = folder.running()
    if running is not None:
        yield GatewayClient(running.url, token)
        return
    with _started(Path(target), folder.artefacts) as url:
        yield GatewayClient(url, token)


@contextmanager
def _started(file: Path, artefacts: Path) -> Iterator[str]:
    """A flow with nothing kept but its artefacts, on free ports, with no output. It runs in a thread of its own, since
    the commands read the terminal."""
    from chatflow_cli.local.console import Console
    from chatflow_cli.local.preparation import Options
    from chatflow_cli.local.stack import Stack

    options = Options(file=file, port=0, data=None, artefact_cache=artefacts, is_reloading=False)
    ready = threading.Event()
    urls: list[str] = []
    failures: list[BaseException] = []

    async def serve() -> None:
        async with Stack(options, Console(is_quiet=True)) as stack:
            urls.append(stack.url)
            ready.set()
            await asyncio.Event().wait()

    loop = asyncio.new_event_loop()
    task = loop.create_task(serve())

    def run() -> None:
        try:
            loop.run_until_complete(task)
        except asyncio.CancelledError:
            pass
        except BaseException as error:  # noqa: BLE001  It is raised again where the caller waits.
            failures.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=run, name="flow")
    thread.start()
    try:
        ready.wait()
        if failures:
            raise failures[0]
        yield urls[0]
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
        loop.close()
