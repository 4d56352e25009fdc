"""The same five-turn conversation with the running shop over every protocol, each through its own real client:
OpenAI's, curl, a WebSocket. The browser has it in e2e/browser.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Generator
from contextlib import closing
from typing import Any

from openai import OpenAI
from tests_cli.shop_process import LiveShop
from tests_runtime.web_clients import Event, new_user, parse_event
from tests_runtime.web_script import CONVERSATION
from websockets.sync.client import connect


def curl(*arguments: str) -> list[str]:
    """A command line of curl."""
    program = shutil.which("curl")
    assert program, "curl is not installed; apt-get install curl"
    return [program, "-sS", "--fail-with-body", "--no-buffer", "--max-time", "60", *arguments]


def fetched(url: str, body: object) -> Any:
    """What curl gets for a POST."""
    command = curl("-d", json.dumps(body), url)
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def streamed(url: str, *arguments: str) -> Generator[Event, None, None]:
    """The events that curl gets, as they come."""
    with subprocess.Popen(curl(*arguments, url), stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        frame = ""
        try:
            for line in reader.stdout:
                frame += line
                if line == "\n":
                    event = parse_event(frame.strip("\n"))
                    frame = ""
                    if event is not None:
                        yield event
        finally:
            reader.kill()


def rate(shop: LiveShop, uid: str) -> Any:
    return fetched(f"{shop.url}/v1/ratings", {"uid": uid, "score": 5})


def test_curl_completes_the_conversation_over_events(live_shop: LiveShop) -> None:
    uid = new_user()
    ids = []
    for number, step in enumerate(CONVERSATION):
        body = json.dumps({"uid": uid, "message_id": f"m{number}", "text": step.text})
        deltas = []
        with live_shop.halting_model() as go_on:
            for event in streamed(f"{live_shop.url}/v1/chat", "-H", "accept: text/event-stream", "-d", body):
                if event.kind == "delta":
                    deltas.append(event.data["text"])
                    go_on()
        assert event.kind == "reply"
        step.check(event.data, deltas)
        ids.append(event.id)
    assert rate(live_shop, uid) == {"scene": "end"}
    with closing(streamed(f"{live_shop.url}/v1/events?uid={uid}", "-H", f"last-event-id: {ids[0]}")) as missed:
        assert [next(missed).id for _ in ids[1:]] == ids[1:]


def test_curl_completes_the_conversation_in_json(live_shop: LiveShop) -> None:
    uid = new_user()
    for number, step in enumerate(CONVERSATION):
        body = {"uid": uid, "message_id": f"m{number}", "text": step.text}
        step.check(fetched(f"{live_shop.url}/v1/chat", body))
    assert rate(live_shop, uid) == {"scene": "end"}


def test_a_websocket_client_completes_the_conversation(live_shop: LiveShop) -> None:
    uid = new_user()
    url = f"{live_shop.url.replace('http', 'ws', 1)}/v1/ws?uid={uid}"
    with connect(url) as socket:
        for number, step in enumerate(CONVERSATION):
            deltas = []
            with live_shop.halting_model() as go_on:
                socket.send(json.dumps({"type": "message", "message_id": f"m{number}", "text": step.text}))
                while (frame := json.loads(socket.recv(30)))["type"] == "delta":
                    deltas.append(frame["text"])
                    go_on()
            assert (frame["type"], frame["message_id"]) == ("reply", f"m{number}"), frame
            step.check(frame, deltas)
        socket.send(json.dumps({"type": "rating", "score": 5}))
        assert json.loads(socket.recv(30)) == {"type": "rated", "scene": "end"}


def test_the_openai_client_completes_the_conversation_in_pieces(live_shop: LiveShop) -> None:
    uid = new_user()
    with OpenAI(base_url=f"{live_shop.url}/v1", api_key="none") as client:
        for step in CONVERSATION:
            deltas = []
            with live_shop.halting_model() as go_on:
                for chunk in client.chat.completions.create(
                    model="chatflow", messages=[{"role": "user", "content": step.text}], user=uid, stream=True
                ):
                    if text := chunk.choices[0].delta.content:
                        deltas.append(text)
                        go_on()
            reply = (chunk.model_extra or {})["chatflow"]
            assert "".join(deltas) == reply["text"]
            step.check(reply, deltas)
    assert rate(live_shop, uid) == {"scene": "end"}


def test_the_openai_client_completes_the_conversation_in_whole_answers(live_shop: LiveShop) -> None:
    uid = new_user()
    with OpenAI(base_url=f"{live_shop.url}/v1", api_key="none") as client:
        for step in CONVERSATION:
            answer = client.chat.completions.create(
                model="chatflow", messages=[{"role": "user", "content": step.text}], user=uid
            )
            reply = (answer.model_extra or {})["chatflow"]
            assert answer.choices[0].message.content == reply["text"]
            step.check(reply)
    assert rate(live_shop, uid) == {"scene": "end"}
