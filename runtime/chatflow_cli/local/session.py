"""One run of `up`, from its start to Ctrl-C: says where the flow is, follows changes. Called by the command."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
from collections.abc import AsyncIterator
from pathlib import Path

from chatflow_api.runtime_config import RuntimeConfig
from chatflow_api.v1alpha1 import Locale
from watchfiles import Change, awatch

from chatflow_cli.errors import CommandFailed
from chatflow_cli.local.console import Console
from chatflow_cli.local.preparation import Options, Prepared
from chatflow_cli.local.stack import Stack

_DEBOUNCE_MS = 300
"""An editor's save is several events; they count as one change."""


async def run(options: Options, console: Console) -> None:
    """Start the flow and serve until SIGINT or SIGTERM. CommandFailed when it does not start."""
    stop = asyncio.Event()
    main = asyncio.current_task()
    assert main is not None, "runs inside asyncio.run"  # noqa: S101

    is_up = False

    def interrupt() -> None:
        if stop.is_set():
            # The second Ctrl-C does not wait for turns under way; the kernel ends the children with us.
            os._exit(130)
        stop.set()
        if not is_up:
            main.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt)
    try:
        async with Stack(options, console) as stack:
            is_up = True
            _announce(stack, options, console)
            if options.is_reloading:
                async for _ in changes(stack, options, stop):
                    await _follow(stack, console)
            await stop.wait()
            console.say("stopping; turns under way are finished, and a second Ctrl-C does not wait for them")
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
        console.say("stopped before it was up")


async def changes(stack: Stack, options: Options, stop: asyncio.Event) -> AsyncIterator[None]:
    """An item for every change beside the manifest or in a volume, until `stop`; the watched folders follow the
    manifest."""
    while not stop.is_set():
        watched = _watched(stack.prepared, options)
        ignored = None if options.data is None else options.data.resolve()

        def matters(_: Change, path: str, ignored: Path | None = ignored) -> bool:
            parts = Path(path).parts
            is_cache = "__pycache__" in parts or any(part.startswith(".") and part != "." for part in parts[-2:])
            return not is_cache and not (ignored is not None and Path(path).is_relative_to(ignored))

        async for _ in awatch(
            *watched, watch_filter=matters, stop_event=stop, debounce=_DEBOUNCE_MS, step=50, recursive=False
        ):
            yield
            if _watched(stack.prepared, options) != watched:
                break


def _watched(prepared: Prepared, options: Options) -> set[Path]:
    folders = set(prepared.watched())
    for volume in options.volumes.values():
        folders |= {folder.resolve() for folder in [volume, *volume.rglob("*")] if folder.is_dir()}
    return folders


async def _follow(stack: Stack, console: Console) -> None:
    try:
        if await stack.reload():
            console.say("the change is in place")
    except CommandFailed as error:
        console.say("the change is not taken over; what ran before keeps running:")
        for line in error.message.splitlines():
            console.say(f"  {line}")


def _announce(stack: Stack, options: Options, console: Console) -> None:
    prepared = stack.prepared
    if prepared.served.llm is None:
        console.say("no language model configured; serving knowledge, actions and the static reply (--llm adds one)")
    if options.is_reloading:
        console.say(f"following changes of {prepared.files.path} and the files that it names")
    greeting = "你好" if prepared.config.locale is Locale.ZH_CN else "Hello"
    text = next(iter(prepared.content.questions), greeting)
    body = shlex.quote(json.dumps({**_who(prepared.served), "message_id": "1", "text": text}, ensure_ascii=False))
    console.show()
    console.show(f"  {prepared.config.dialogue.title}: {stack.url}")
    console.show(f"  health and metrics: {stack.admin_url}/readyz and /metrics")
    credential = ""
    if prepared.served.gateway.auth.required:
        credential = '-H "authorization: Bearer $TOKEN" '
        if prepared.served.gateway.auth.anonymous:
            read = "import json, sys; print(json.load(sys.stdin)['token'])"
            console.show(f'  TOKEN=$(curl -s -X POST {stack.url}/v1/sessions | python3 -c "{read}")')
    console.show(f"  curl -s {stack.url}/v1/chat {credential}-H 'content-type: application/json' -d {body}")
    console.show()


def _who(config: RuntimeConfig) -> dict[str, str]:
    """What names the user in a request, where no token does."""
    return {} if config.gateway.auth.required and config.gateway.auth.anonymous else {"uid": "me"}
