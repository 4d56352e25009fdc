"""The real parts of a flow as processes that a scenario may kill: state servers, two gateways, two workers."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import aiohttp
from chatflow_api.names import inference_service, predictor_host
from chatflow_api.runtime_config import derive
from chatflow_api.v1alpha1 import ChatFlow
from tests_runtime.planted_intent_server import planted_intent_server
from tests_runtime.scripted_openai import scripted_openai
from tests_runtime.state_servers import (
    Replicated,
    StateServer,
    free_ports,
    installed,
    replicated_server,
)

from e2e.faults.models import LARGE, SMALL, Models
from e2e.faults.proxy import Proxy, proxied

START_S = 120.0
INTENT_SERVER = inference_service("faults", "intent")
INTENT_HOST = predictor_host("faults", "default", "intent")
KNOWN = {"When are you open?": "From nine to five.", "How do I get my money back?": "Within a week."}
"""Questions that the knowledge base answers, without any model."""


@dataclass(frozen=True)
class Layout:
    """What the parts of a scenario are."""

    is_replicated: bool = False
    """Three state servers under Sentinel, not one."""
    has_intent_server: bool = False
    """Behind a proxy of its own; otherwise gateways classify by themselves."""
    llm_url: str | None = None
    """Of a model that takes the place of the two that can be made to fail."""


def flow(llm_url: str, layout: Layout) -> ChatFlow:
    """A flow with two answers, one intent and one or two language models."""
    names = {"llm": LARGE, **({} if layout.llm_url else {"backup": SMALL})}
    models = {name: {"openAI": {"baseURL": llm_url, "model": model}} for name, model in names.items()}
    intents = {"hours": ["When are you open?", "opening hours"], "refund": ["I want my money back", "refund please"]}
    served = {"kserve": {"storageUri": "pvc://none/none"}} if layout.has_intent_server else {}
    spec = {
        "locale": "en",
        "state": {"redis": {"replication": {"replicas": int(layout.is_replicated)}}},
        "gateway": {"auth": {"required": False}, "rateLimit": {"perUser": {"messages": 0}}},
        "knowledge": {"sources": [{"configMap": {"name": "faq"}}], "minScore": 0.5},
        "models": {"intent": {"encoder": "none", "examples": intents, **served}, **models},
    }
    return ChatFlow.model_validate(
        {"apiVersion": "chatflow.dev/v1alpha1", "kind": "ChatFlow", "metadata": {"name": "faults"}, "spec": spec}
    )


class Member:
    """One gateway or worker."""

    def __init__(self, role: str, environment: Mapping[str, str], folder: Path) -> None:
        self.port, self._admin_port = free_ports(2)
        self._command = [sys.executable, "-m", "chatflow_runtime", "--role", role]
        ports = {"CHATFLOW_PORT": str(self.port), "CHATFLOW_ADMIN_PORT": str(self._admin_port)}
        self._environment = {**os.environ, **environment, **ports, "CHATFLOW_SINK_DIR": str(folder)}
        folder.mkdir()
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where users reach a gateway."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process, which must have been started."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """What it has said."""
        return self._log.read_text(encoding="utf-8")

    async def start(self) -> None:
        """Start it, and return once it is ready."""
        self._process = process = self._begun()
        ready = f"http://127.0.0.1:{self._admin_port}/readyz"
        async with asyncio.timeout(START_S), aiohttp.ClientSession() as session:
            while not await _is_ok(session, ready):
                if process.poll() is not None:
                    raise RuntimeError(f"{' '.join(self._command[2:])} ended:\n{self.log[-2000:]}")
                await asyncio.sleep(0.05)

    def _begun(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(self._command, env=self._environment, stdout=log, stderr=log)

    async def kill(self) -> None:
        """End it as a crash would."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        await self._end(signal.SIGTERM)

    async def _end(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            await asyncio.to_thread(self._process.wait)


async def _is_ok(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


@dataclass(frozen=True)
class Plant:
    """What a scenario may do harm to."""

    gateways: Sequence[Member]
    workers: Sequence[Member]
    models: Models
    state: StateServer | None
    """The one state server, unless there are several."""
    replicated: Replicated | None
    proxy: Proxy | None
    """Stands between the first gateway and the one state server."""
    intents: Proxy | None
    """Stands between all and the intent server."""
    clock: Clock
    """The wall clock of the first gateway and the first worker."""
    flow: ChatFlow

    @property
    def urls(self) -> list[str]:
        """Where users may go."""
        return [gateway.url for gateway in self.gateways]


@dataclass(frozen=True)
class Clock:
    """How far a process' wall clock is ahead."""

    file: Path

    def set(self, ahead_s: float) -> None:
        """Shift it."""
        with self.file.open("r+b") as opened:
            opened.write(struct.pack("<d", ahead_s))

    @property
    def environment(self) -> dict[str, str]:
        """What makes a Python process go by it."""
        return {"CHATFLOW_FAULTS_CLOCK": str(self.file), "PYTHONPATH": str(Path(__file__).with_name("clock"))}


@asynccontextmanager
async def running(layout: Layout) -> AsyncIterator[Plant]:
    """All of it while the context lasts."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chatflow-faults-")))
        models = Models(llm := await stack.enter_async_context(scripted_openai()))
        described = flow(layout.llm_url or llm.base_url, layout)
        replicated = (
            stack.enter_context(replicated_server(settings=_sentinel_settings())) if layout.is_replicated else None
        )
        state, proxy, urls = None, None, [replicated.url] * 2 if replicated else []
        if replicated is None:
            (port,) = free_ports(1)
            state = StateServer(installed()[0], folder, ("--maxmemory-policy", "noeviction"), port)
            stack.callback(state.kill)
            state.start()
            proxy = await stack.enter_async_context(proxied(port))
            urls = [f"redis://127.0.0.1:{proxy.port}", f"redis://127.0.0.1:{port}"]
        environment, intents = await prepared(described, folder), None
        if layout.has_intent_server:
            planted = await stack.enter_async_context(planted_intent_server(INTENT_SERVER))
            intents = await stack.enter_async_context(proxied(planted.port))
            environment["CHATFLOW_HOST_ALIASES"] = f"{INTENT_HOST}=127.0.0.1:{intents.port}"
        clock = Clock(folder / "clock")
        clock.file.write_bytes(struct.pack("<d", 0.0))
        clocks: tuple[dict[str, str], ...] = (clock.environment, {})
        members = {
            role: [
                Member(role, {**environment, **clocks[number], "CHATFLOW_REDIS_URL": url}, folder / f"{role}-{number}")
                for number, url in enumerate(urls)
            ]
            for role in ("gateway", "worker")
        }
        everyone = [*members["gateway"], *members["worker"]]
        for member in everyone:
            stack.push_async_callback(member.kill)
        await asyncio.gather(*(member.start() for member in everyone))
        yield Plant(members["gateway"], members["worker"], models, state, replicated, proxy, intents, clock, described)


def _sentinel_settings() -> dict[str, int]:
    """Those of a managed state server on a cluster."""
    script = (resources.files("chatflow_operator.resources") / "redis" / "sentinel.sh").read_text(encoding="utf-8")
    names = ("down-after-milliseconds", "failover-timeout")
    found = {name: re.search(rf"sentinel {name} primary (\d+)", script) for name in names}
    return {name: int(value[1]) for name, value in found.items() if value is not None}


async def prepared(described: ChatFlow, folder: Path) -> dict[str, str]:
    """A flow's environment, with its files in a folder: configuration, knowledge, intent model and index."""
    config, manifest, contents = folder / "runtime.json", folder / "flow.json", folder / "configmaps" / "faq"
    config.write_text(derive(described).model_dump_json(), encoding="utf-8")
    manifest.write_text(described.model_dump_json(by_alias=True, exclude_none=True), encoding="utf-8")
    contents.mkdir(parents=True)
    pairs = [{"id": f"k{at}", "question": asked, "answer": told} for at, (asked, told) in enumerate(KNOWN.items())]
    (contents / "faq.jsonl").write_text("\n".join(map(json.dumps, pairs)), encoding="utf-8")
    command = [sys.executable, "-m", "chatflow_cli.build_artefacts", "--flow", str(manifest)]
    command += ["--configmaps", str(contents.parent), "--artefacts", str(folder / "artefacts")]
    built = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await built.communicate()
    if built.returncode != 0:
        raise RuntimeError(f"the artefacts were not built:\n{said.decode()}")
    return {
        "CHATFLOW_CONFIG": str(config),
        "CHATFLOW_CONFIGMAPS_DIR": str(contents.parent),
        "CHATFLOW_ARTEFACTS_DIR": str(folder / "artefacts"),
        "CHATFLOW_LOG_FORMAT": "json",
    }
