"""Chats through the gateway to a real vLLM, warmed by the sidecar: all streamed to the end, every token counted."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from e2e.cluster.layout import REPOSITORY
from e2e.models import vllm
from e2e.models.processes import Warmed, free_port, get, warmed

CHATS = 32
pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1800)]


@dataclass(frozen=True, slots=True)
class Chat:
    """A running flow whose language model is vLLM."""

    server: Warmed
    port: int
    admin_port: int


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chat]:
    found, port = vllm.installed(os.environ), free_port()
    gateway, admin = free_port(), free_port()
    # Deadlines for two busy cores; the tiny model's tokens are hardly longer than letters.
    spec = {
        "firstTokenDeadline": "120s", "tokenGapDeadline": "60s", "answerDeadline": "5m", "maxTokens": "64",
        "contextTokens": "1500",
    }  # fmt: skip
    settings = [part for name, value in spec.items() for part in ("--set", f"models.llm.{name}={value}")]
    command = [sys.executable, "-m", "chatflow_cli", "up", "examples/saas-support", "--ephemeral", "--no-reload"]
    command += ["--set", "gateway.auth.required=false"]
    command += [f"--port={gateway}", f"--admin-port={admin}", f"--llm=http://127.0.0.1:{port}/v1", "--llm-model=tiny"]
    folder = tmp_path_factory.mktemp("vllm")
    with (
        warmed(found.command(port, "tiny"), port, found.environment, folder, MODEL="tiny") as server,
        subprocess.Popen([*command, *settings], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as flow,
    ):
        assert flow.stdout is not None
        said = []
        for line in flow.stdout:
            said.append(line)
            if f"http://127.0.0.1:{gateway}" in line:
                break
        else:
            pytest.fail("the flow did not start:\n" + "".join(said))
        yield Chat(server, gateway, admin)
        flow.send_signal(signal.SIGINT)
        flow.communicate(timeout=120)


def samples(port: int, name: str, labels: str = "") -> float:
    """The sum of a metric's samples whose labels match."""
    status, text = get(port, "/metrics")
    assert status == 200
    lines = re.findall(rf"^{name}{{([^}}]*)}} (\S+)$", text, re.MULTILINE)
    return sum(float(value) for found, value in lines if re.search(labels, found))


async def asked(session: aiohttp.ClientSession, url: str, number: int) -> tuple[str, dict[str, Any]]:
    """(what was streamed, the reply that ended it) of one chat."""
    body = {"uid": f"user-{number}", "message_id": "m1", "text": f"Tell me tale {number} of a lighthouse and a whale"}
    streamed, reply = "", dict[str, Any]()
    async with session.post(url, json=body, headers={"Accept": "text/event-stream"}) as answer:
        assert answer.status == 200, await answer.text()
        kind = ""
        async for line in answer.content:
            text = line.decode().rstrip("\n")
            if text.startswith("event: "):
                kind = text.removeprefix("event: ")
            elif text.startswith("data: "):
                data = json.loads(text.removeprefix("data: "))
                if kind == "delta":
                    streamed += data["text"]
                elif kind == "reply":
                    reply = data
    return streamed, reply


async def test_32_chats_at_once_are_streamed_to_the_end_and_every_token_is_counted(chat: Chat) -> None:
    def counted_by_vllm() -> tuple[float, float]:
        return tuple(samples(chat.server.port, f"vllm:{kind}_tokens_total") for kind in ("prompt", "generation"))  # type: ignore[return-value]

    def counted_by_gateway() -> tuple[float, float]:
        kinds = ("prompt", "completion")
        return tuple(samples(chat.admin_port, "chatflow_tokens_total", f'kind="{kind}"') for kind in kinds)  # type: ignore[return-value]

    before = counted_by_vllm()
    limits = aiohttp.ClientTimeout(total=600)
    async with aiohttp.ClientSession(timeout=limits) as session:
        url = f"http://127.0.0.1:{chat.port}/v1/chat"
        answers = await asyncio.gather(*(asked(session, url, number) for number in range(CHATS)))
    replies = [reply for _, reply in answers]
    assert {(reply["origin"], reply["rung"], reply["is_partial"]) for reply in replies} == {("llm", "L1", False)}
    assert [streamed for streamed, _ in answers] == [reply["text"] for reply in replies]
    after = counted_by_vllm()
    prompt, completion = (now - then for now, then in zip(after, before, strict=True))
    assert (prompt, completion) == counted_by_gateway()
    assert completion == sum(reply["usage"]["completion_tokens"] for reply in replies)
    assert prompt == sum(reply["usage"]["prompt_tokens"] for reply in replies)


def test_the_sidecar_saw_the_server_warm_up(chat: Chat) -> None:
    assert chat.server.is_ready
    _, text = get(chat.server.probe_port, "/metrics")
    found = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(found["chatflow_warmup_server_starts_total"]) == 1
    assert float(found["chatflow_warmup_first_token_seconds"]) <= 1.5 * float(
        found["chatflow_warmup_best_first_token_seconds"]
    )
