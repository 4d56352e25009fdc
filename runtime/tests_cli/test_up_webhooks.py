"""`chatflow up` with webhooks and an agent desk: a worker is killed between telling the desk and hearing that it has
been told, and the conversation goes to a person and back."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from standardwebhooks.webhooks import Webhook
from tests_cli.up_process import START_S, of_role, running
from tests_runtime.hook_receiver import Post, receiving
from tests_runtime.web_clients import events

SECRET, KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "0123456789abcdef0123456789abcdef"
MANIFEST = """\
apiVersion: chatflow.dev/v1alpha1
kind: ChatFlow
metadata: {{name: desk}}
spec:
  locale: en
  gateway:
    messages:
      webhook: {{url: "{url}/messages", secretRef: {{name: desk, key: hook}}}}
  dialogue:
    greeting: Hello.
    handoff:
      webhook: {{url: "{url}/desk", secretRef: {{name: desk, key: hook}}}}
      agentSecretRef: {{name: desk, key: agents}}
  models: {{intent: {{encoder: none}}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: desk}}
stringData:
  hook: {secret}
  agents: {key}
"""


def at(posts: list[Post], path: str) -> list[Post]:
    return [post for post in posts if post.path == path]


def types(posts: list[Post]) -> list[str]:
    """Of distinct deliveries, in the order of their first attempt."""
    return list({post.id: post.json["type"] for post in posts}.values())


async def test_a_conversation_goes_to_a_person_and_back_while_a_worker_is_killed(tmp_path: Path) -> None:
    manifest, killed = tmp_path / "flow.yaml", asyncio.Event()
    async with receiving() as receiver, aiohttp.ClientSession() as session:

        async def answer(post: Post) -> web.StreamResponse:
            if post.path == "/desk" and not killed.is_set():
                # The worker is killed before it hears that this was taken.
                await killed.wait()
            return web.Response()

        receiver.answer = answer
        manifest.write_text(MANIFEST.format(url=receiver.url, secret=SECRET, key=KEY), encoding="utf-8")
        async with running(str(manifest), "--ephemeral", "--no-reload", folder=tmp_path) as up:
            await up.says(f": {up.url}", START_S)

            async def send(path: str, body: dict[str, Any], key: str = "") -> Any:
                headers = {"authorization": f"Bearer {key}"} if key else {}
                async with session.post(f"{up.url}{path}", json=body, headers=headers) as response:
                    assert response.status in (200, 202), await response.text()
                    return await response.json()

            await send("/v1/messages", {"uid": "u", "message_id": "m1", "text": "hi"})
            await receiver.until(lambda posts: types(posts) == ["message.answered"])
            (first,) = receiver.posts
            Webhook(SECRET).verify(first.body, first.headers)
            assert first.json["data"]["reply"]["text"] == "Hello."

            await send("/v1/chat", {"uid": "u", "message_id": "m2", "text": "Talk to a human!"})
            await send("/v1/chat", {"uid": "u", "message_id": "m3", "text": "It is about my order."})
            await receiver.until(lambda posts: len(at(posts, "/desk")) == 1)
            up.forget()
            (worker,) = of_role(up.process.pid, "worker")
            os.kill(worker, signal.SIGKILL)
            killed.set()
            await up.says("worker_ready", START_S)
            await receiver.until(lambda posts: len(at(posts, "/desk")) == 3)
            one, again, message = at(receiver.posts, "/desk")
            assert (one.id, one.body) == (again.id, again.body)
            assert [turn["text"] for turn in one.json["data"]["transcript"]] == ["hi", "Hello.", "Talk to a human!"]
            assert message.json["data"]["message"]["text"] == "It is about my order."
            assert message.json["data"]["handoff_id"] == one.json["data"]["handoff_id"]
            for post in (one, again, message):
                Webhook(SECRET).verify(post.body, post.headers)

            await send("/v1/handoffs/u/messages", {"message_id": "a1", "text": "Ann here.", "agent": "Ann"}, KEY)
            await send("/v1/handoffs/u/return", {"message_id": "a2"}, KEY)
            assert (await send("/v1/chat", {"uid": "u", "message_id": "m4", "text": "hello"}))["text"] == "Hello."
            await receiver.until(lambda posts: "handoff.ended" in types(posts))
            assert types(at(receiver.posts, "/desk")) == ["handoff.requested", "handoff.message", "handoff.ended"]

            kinds = []
            async with session.get(f"{up.url}/v1/events?uid=u&last_event_id=0") as stream:
                async for event in events(stream):
                    kinds.append(event.data.get("kind", event.data["message_id"]))
                    if kinds[-1] == "m4":
                        break
            assert kinds == ["m1", "m2", "m3", "agent", "returned", "m4"]
