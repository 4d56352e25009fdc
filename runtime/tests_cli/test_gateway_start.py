"""A gateway that starts before anything it needs is there, as a pod does in a new namespace."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from chatflow_api.names import METRIC_MODEL_WAITING
from chatflow_api.runtime_config import derive
from chatflow_cli.local.artefact_store import ArtefactStore
from chatflow_cli.local.build import Build
from chatflow_cli.local.build_request import BuildRequest
from chatflow_cli.local.console import Console
from chatflow_cli.local.manifest_file import load
from chatflow_cli.local.preparation import Options, prepare
from chatflow_cli.local.sockets import free_port
from chatflow_cli.local.state_server import StateServer
from tests_runtime.planted_intent_server import Status, planted_intent_server

WITHIN_S = 90.0


@dataclass
class Pod:
    """A gateway's process, and a client of its ports."""

    process: asyncio.subprocess.Process
    url: str
    admin: str
    session: aiohttp.ClientSession
    count: int = 0

    async def health(self, path: str) -> tuple[int, str]:
        try:
            async with self.session.get(f"{self.admin}{path}") as response:
                return response.status, await response.text()
        except aiohttp.ClientConnectorError:
            return 0, ""

    async def ask(self, text: str) -> dict[str, Any]:
        self.count += 1
        body = {"uid": f"u{self.count}", "message_id": "m", "text": text}
        async with self.session.post(f"{self.url}/v1/chat", json=body) as response:
            reply: dict[str, Any] = await response.json()
            return {"status": response.status, **reply}

    async def until(self, path: str, holds: Callable[[int, str], bool]) -> str:
        async with asyncio.timeout(WITHIN_S):
            while not holds(*(seen := await self.health(path))):
                assert self.process.returncode is None
                await asyncio.sleep(0.05)
        return seen[1]

    async def answers(self, text: str, holds: Callable[[dict[str, Any]], bool]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not holds(await self.ask(text)):  # noqa: ASYNC110  The gateway tells no one of a swap.
                await asyncio.sleep(0.1)


@asynccontextmanager
async def gateway(flow: Path, root: Path, deadline_s: float, aliases: str = "") -> AsyncIterator[Pod]:
    port, admin = free_port(), free_port()
    (root / "config.json").write_text(derive(load(flow, {"gateway.auth.required": "false"}).flow).model_dump_json())
    environment = {
        "CHATFLOW_CONFIG": str(root / "config.json"),
        "CHATFLOW_REDIS_URL": f"unix://{root}/redis/redis.sock",
        "CHATFLOW_ARTEFACTS_DIR": str(root / "artefacts"),
        "CHATFLOW_PORT": str(port),
        "CHATFLOW_ADMIN_PORT": str(admin),
        "CHATFLOW_STARTUP_DEADLINE_S": str(deadline_s),
        "CHATFLOW_HOST_ALIASES": aliases,
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "chatflow_runtime", "--role", "gateway"), env={**os.environ, **environment}
    )
    try:
        async with aiohttp.ClientSession() as session:
            yield Pod(process, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin}", session)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            assert await process.wait() == 0


async def test_a_gateway_without_anything_serves_at_its_deadline_and_heals(tiny: Path, tmp_path: Path) -> None:
    async with gateway(tiny, tmp_path, 2.0) as pod:
        await pod.until("/livez", lambda status, _: status == 200)
        reason = await pod.until("/readyz", lambda status, text: status == 200 or "waiting for" in text)
        assert reason == "ready\n" or ("waiting for artefacts" in reason and "Redis" in reason)
        await pod.until("/readyz", lambda status, _: status == 200)
        assert (await pod.ask("How long does a refund take?"))["status"] == 503
        server = await StateServer.start(tmp_path / "redis", Console(is_quiet=True), is_durable=False)
        try:
            await pod.answers("hello", lambda reply: reply["status"] == 200)
            assert (await pod.ask("How long does a refund take?"))["origin"] == "static"

            prepared = prepare(Options(file=tiny))
            store = ArtefactStore(tmp_path / "artefacts")
            build = Build(BuildRequest.of(prepared.config, prepared.content), store.path, lambda _: None)
            first = await asyncio.to_thread(build.first, None)
            assert first is not None
            assert first.intent is None
            store.put_in_force(first)
            await pod.answers("How long does a refund take?", lambda reply: reply["origin"] == "knowledge")
            store.put_in_force(await asyncio.to_thread(build.whole))
            await pod.until("/metrics", lambda _, text: _counted(text) == 0)
            await pod.answers("where is my parcel", lambda reply: reply["status"] == 200)
            async with asyncio.timeout(WITHIN_S):
                while _counted((await pod.health("/metrics"))[1]) == 0:
                    await pod.ask("where is my parcel")
                    await asyncio.sleep(0.1)
            assert (await pod.health("/readyz"))[0] == 200
        finally:
            await server.stop()
        assert (await pod.health("/readyz"))[0] == 200


def _counted(metrics: str) -> float:
    """How many texts an intent model has classified."""
    lines = [line for line in metrics.splitlines() if line.startswith("chatflow_classifications_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


SERVED = """\
  models:
    llm: {kserve: {storageUri: "pvc://models/qwen", replicas: {min: 0, max: 2}}}
    intent:
      kserve: {storageUri: "pvc://tiny-data/artefacts"}
      deadline: 5s
"""


@pytest.fixture
def served(tiny: Path) -> Path:
    """The tiny flow with models that KServe serves."""
    text = tiny.read_text(encoding="utf-8")
    tiny.write_text(text.replace("  models:\n    intent:\n", SERVED), encoding="utf-8")
    return tiny


async def test_a_gateway_asks_the_models_that_kserve_serves_also_one_that_sleeps(served: Path, tmp_path: Path) -> None:
    prepared = prepare(Options(file=served))
    assert prepared.served.intent.server is None
    store = ArtefactStore(tmp_path / "artefacts")
    built = Build(BuildRequest.of(prepared.config, prepared.content), store.path, lambda _: None).first(None)
    assert built is not None
    # No such model lies on the volume, and the gateway does not look for it.
    store.put_in_force(replace(built, intent="0123456789abcdef"))
    redis = await StateServer.start(tmp_path / "redis", Console(is_quiet=True), is_durable=False)
    try:
        async with planted_intent_server("tiny-intent") as intents:
            intent_host = f"tiny-intent-predictor.default.svc=127.0.0.1:{intents.port}"
            aliases = f"{intent_host},tiny-llm-predictor.default.svc=127.0.0.1:{free_port()}"
            async with gateway(served, tmp_path, 3600.0, aliases) as pod:
                # At once: the server that sleeps is not waited for.
                await pod.until("/readyz", lambda status, _: status == 200)
                asked = "How many days for a refund"
                reply = await pod.ask(asked)
                assert (reply["origin"], reply["intent"]) == ("knowledge", asked)
                reply = await pod.ask("What is your mascot?")
                assert (reply["origin"], reply["retry_after_s"]) == ("static", 30)
                intents.faults.append(Status(500))
                reply = await pod.ask("How many days for shipping")
                assert (reply["origin"], reply["intent"]) == ("knowledge", None)
                metrics = (await pod.health("/metrics"))[1]
                assert f'{METRIC_MODEL_WAITING}{{role="llm"}} 1.0' in metrics
                assert 'chatflow_intent_faults_total{reason="failed"} 1.0' in metrics
    finally:
        await redis.stop()


async def test_a_gateway_that_is_told_to_end_while_it_waits_ends(tiny: Path, tmp_path: Path) -> None:
    async with gateway(tiny, tmp_path, 3600.0) as pod:
        reason = await pod.until("/readyz", lambda status, text: status == 503 and "artefacts (" in text)
        assert reason.startswith("warming up: waiting for artefacts (")
