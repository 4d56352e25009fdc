"""The same five-turn conversation over every protocol, each through its own real client: OpenAI's, curl, a WebSocket.

`target` is what they talk to; the tests know its address and its conversation, nothing else of it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from openai import OpenAI
from tests_runtime.web_clients import Event, new_user, parse_event
from tests_runtime.web_gateway import running_gateway
from tests_runtime.web_script import Step, script
from websockets.sync.client import connect


@dataclass(frozen=True)
class Target:
    """A gateway, and the conversation to have with it."""

    base_url: str
    steps: tuple[Step, ...]


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    with running_gateway() as gateway:
        yield Target(gateway.base_url, script(slot="order"))


def curl(target: Target, path: str, *arguments: str) -> str:
    program = shutil.which("curl")
    assert program, "curl is not installed; apt-get install curl"
    command = [
        program,
        "-sS",
        "--fail-with-body",
        "--no-buffer",
        "--max-time",
        "60",
        *arguments,
        target.base_url + path,
    ]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def events_of(output: str) -> list[Event]:
    parsed = (parse_event(frame) for frame in output.split("\n\n") if frame)
    return [event for event in parsed if event is not None]


def rate(target: Target, uid: str) -> Any:
    return json.loads(curl(target, "/v1/ratings", "-d", json.dumps({"uid": uid, "score": 5})))


def test_curl_completes_the_conversation_over_events(target: Target) -> None:
    uid = new_user()
    ids = []
    for number, step in enumerate(target.steps):
        body = json.dumps({"uid": uid, "message_id": f"m{number}", "text": step.text})
        *deltas, reply = events_of(curl(target, "/v1/chat", "-H", "accept: text/event-stream", "-d", body))
        step.check(reply.data, [delta.data["text"] for delta in deltas])
        ids.append(reply.id)
    assert rate(target, uid) == {"scene": "end"}
    resumed = subprocess.run(
        ["curl", "-sN", "--max-time", "1", "-H", f"last-event-id: {ids[0]}", f"{target.base_url}/v1/events?uid={uid}"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert [event.id for event in events_of(resumed.stdout)] == ids[1:]


def test_curl_completes_the_conversation_in_json(target: Target) -> None:
    uid = new_user()
    for number, step in enumerate(target.steps):
        body = json.dumps({"uid": uid, "message_id": f"m{number}", "text": step.text})
        reply = json.loads(curl(target, "/v1/chat", "-d", body))
        step.check(reply, [reply["text"], ""])
    assert rate(target, uid) == {"scene": "end"}


def test_a_websocket_client_completes_the_conversation(target: Target) -> None:
    uid = new_user()
    with connect(f"{target.base_url.replace('http', 'ws', 1)}/v1/ws?uid={uid}") as socket:
        for number, step in enumerate(target.steps):
            socket.send(json.dumps({"type": "message", "message_id": f"m{number}", "text": step.text}))
            deltas = []
            while (frame := json.loads(socket.recv(30)))["type"] == "delta":
                deltas.append(frame["text"])
            assert (frame["type"], frame["message_id"]) == ("reply", f"m{number}"), frame
            step.check(frame, deltas)
        socket.send(json.dumps({"type": "rating", "score": 5}))
        assert json.loads(socket.recv(30)) == {"type": "rated", "scene": "end"}


@pytest.mark.parametrize("is_streamed", [True, False], ids=["streamed", "whole"])
def test_the_openai_client_completes_the_conversation(target: Target, is_streamed: bool) -> None:
    uid = new_user()
    with OpenAI(base_url=f"{target.base_url}/v1", api_key="none") as client:
        for step in target.steps:
            create = client.chat.completions.create
            if is_streamed:
                chunks: Any = list(
                    create(model="chatflow", messages=[{"role": "user", "content": step.text}], user=uid, stream=True)
                )
                deltas = [chunk.choices[0].delta.content or "" for chunk in chunks]
                assert "".join(deltas) == chunks[-1].model_extra["chatflow"]["text"]
                step.check(chunks[-1].model_extra["chatflow"], deltas)
            else:
                answer: Any = create(model="chatflow", messages=[{"role": "user", "content": step.text}], user=uid)
                step.check(answer.model_extra["chatflow"], [answer.choices[0].message.content, ""])
    assert rate(target, uid) == {"scene": "end"}
