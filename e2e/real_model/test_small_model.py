"""The English example with a real small language model: `chatflow up examples/saas-support --llm embedded`."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.real_model, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A running flow; the model's deadlines are long, because it runs on a few slow cores."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "chatflow_cli", "up", "examples/saas-support", "--llm", "embedded", "--ephemeral"]
    command += ["--set", "gateway.auth.required=false"]
    command += ["--port", str(port), "--no-reload", "--set", "models.llm.maxTokens=48"]
    address = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as flow:
        assert flow.stdout is not None
        said = []
        for line in flow.stdout:
            said.append(line)
            if address in line:
                break
        else:
            pytest.fail("the flow did not start:\n" + "".join(said))
        yield address
        flow.send_signal(signal.SIGINT)
        flow.communicate(timeout=60)


def ask(url: str, text: str, message_id: str) -> dict[str, Any]:
    """One answer by REST."""
    body = json.dumps({"uid": "real-model", "message_id": message_id, "text": text}).encode()
    request = urllib.request.Request(f"{url}/v1/chat", body, {"content-type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=300) as answer:  # noqa: S310  Loopback.
        reply: dict[str, Any] = json.load(answer)
    return reply


def test_the_model_answers_what_the_knowledge_base_does_not(url: str) -> None:
    reply = ask(url, "Tell me a short story about a lighthouse keeper and a whale", "m1")
    assert (reply["origin"], reply["rung"]) == ("llm", "L1")
    assert len(reply["text"].split()) >= 5
    assert reply["usage"]["completion_tokens"] > 0


def test_the_knowledge_base_still_answers_without_the_model(url: str) -> None:
    reply = ask(url, "How do I get a refund?", "m2")
    assert reply["origin"] == "knowledge"
    assert reply["citations"]
