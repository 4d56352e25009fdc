"""A gateway that is killed while it answers: `up` starts it again on the same state, the clients send their messages
again, and every message takes effect once.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from tests_cli.up_process import START_S, of_role, running
from tests_runtime.scripted_openai import Hold, Request, Say, Script, ScriptedOpenAI, scripted_openai
from tests_runtime.web_clients import events

MANIFEST = """\
apiVersion: chatflow.dev/v1alpha1
kind: ChatFlow
metadata: {{name: crash}}
spec:
  locale: zh-CN
  gateway: {{auth: {{required: false}}}}
  dialogue:
    greeting: 您好。
    actions:
      - name: refund
        intent: refund
        http: {{url: "{api}/refunds", method: POST, timeout: 30s}}
        reply: 退款单号 {{response.number}}
  models:
    intent:
      encoder: none
      confidence: 0.5
      examples:
        refund: [我要退款, 请帮我退款, 申请退款, 把钱退给我, 我想退款]
        delivery: [什么时候到货, 快递到哪了, 几天能送到, 查物流, 何时发货]
        out_of_scope: [今天天气怎么样, 写一首诗, 谁赢了比赛, 翻译一个词, 讲个笑话]
    llm:
      openAI: {{baseURL: "{llm}", model: scripted}}
      firstTokenDeadline: 60s
      tokenGapDeadline: 60s
"""
POEM, JOKE, WEATHER, REFUND = "写一首诗", "讲个笑话", "今天天气怎么样", "我要退款"


@dataclass
class RefundApi:
    """A business API that answers every call but the first, which it still has when the gateway is killed."""

    url: str = ""
    keys: list[str] = field(default_factory=list)
    called: asyncio.Event = field(default_factory=asyncio.Event)

    async def refund(self, request: web.Request) -> web.Response:
        self.keys.append(request.headers["Idempotency-Key"])
        self.called.set()
        if len(self.keys) == 1:
            await asyncio.Event().wait()
        return web.json_response({"number": f"R{len(self.keys)}"})


@asynccontextmanager
async def refund_api() -> AsyncIterator[RefundApi]:
    api = RefundApi()
    app = web.Application()
    app.add_routes([web.post("/refunds", api.refund)])
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        api.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield api
    finally:
        await runner.cleanup()


@dataclass
class Crash:
    """A gateway that is killed once the turns of several users are under way."""

    url: str
    session: aiohttp.ClientSession
    llm: ScriptedOpenAI
    under_way: asyncio.Barrier
    is_back: asyncio.Event = field(default_factory=asyncio.Event)

    def asked(self, question: str) -> list[Request]:
        """What the language model received of a question."""
        return [request for request in self.llm.requests if request.question == question]

    def answer(self, request: Request) -> Script:
        """The first answer about a poem or a joke is still under way when the gateway is killed."""
        is_cut = request.question in (POEM, JOKE) and len(self.asked(request.question)) == 1
        rest = Hold(asyncio.Event()) if is_cut else Say(request.question)
        return Script((Say("答："), rest))


@dataclass
class User:
    """A user of the flow."""

    uid: str
    crash: Crash

    def post(self, message_id: str, text: str, accept: str = "application/json") -> Any:
        body = {"uid": self.uid, "message_id": message_id, "text": text}
        return self.crash.session.post(f"{self.crash.url}/v1/chat", json=body, headers={"accept": accept})

    async def ask(self, message_id: str, text: str) -> dict[str, Any]:
        async with self.post(message_id, text) as response:
            assert response.status == 200, await response.text()
            reply: dict[str, Any] = await response.json()
            return reply

    async def retry(self, message_id: str, text: str) -> str:
        """The text of the one reply to two retries at a time, and to a third that comes when it is there."""
        first, second = await asyncio.gather(self.ask(message_id, text), self.ask(message_id, text))
        third = await self.ask(message_id, text)
        assert first == second == third
        return str(third["text"])

    async def outbox(self, until: str) -> list[tuple[str, str]]:
        """Message ids and texts of the replies that are kept, up to the one to a message."""
        replies: list[tuple[str, str]] = []
        address = f"{self.crash.url}/v1/events?uid={self.uid}&last_event_id=0"
        async with self.crash.session.get(address) as response:
            async for event in events(response):
                replies.append((event.data["message_id"], event.data["text"]))
                if event.data["message_id"] == until:
                    break
        return replies

    async def history(self) -> list[str]:
        """What was said so far, as the language model is shown it with a last message; that one is left out."""
        last = f"翻译一个词 {self.uid}"
        await self.ask("last", last)
        (request,) = self.crash.asked(last)
        return [message["content"] for message in request.body["messages"][1:-1]]


async def a_streamed_answer_breaks_off(crash: Crash) -> None:
    user = User("streams", crash)
    await user.ask("m0", "你好")
    async with user.post("m1", POEM, accept="text/event-stream") as response:
        stream = events(response)
        assert (await anext(stream)).data == {"text": "答："}
        await crash.under_way.wait()
        with pytest.raises(aiohttp.ClientError):
            await anext(stream)
    await crash.is_back.wait()
    assert await user.retry("m1", POEM) == f"答：{POEM}"
    assert len(crash.asked(POEM)) == 2
    assert await user.history() == ["你好", "您好。", POEM, f"答：{POEM}"]
    assert await user.outbox(until="last") == [
        ("m0", "您好。"),
        ("m1", f"答：{POEM}"),
        ("last", "答：翻译一个词 streams"),
    ]


async def a_business_api_is_called_again_under_its_key(crash: Crash, api: RefundApi) -> None:
    user = User("acts", crash)
    waiting = asyncio.create_task(user.ask("m1", REFUND))
    await api.called.wait()
    await crash.under_way.wait()
    with pytest.raises(aiohttp.ClientError):
        await waiting
    await crash.is_back.wait()
    assert await user.retry("m1", REFUND) == "退款单号 R2"
    assert len(api.keys) == 2
    assert len(set(api.keys)) == 1
    assert await user.history() == [REFUND, "退款单号 R2"]


async def another_message_comes_before_the_retry(crash: Crash) -> None:
    user = User("hurries", crash)
    waiting = asyncio.create_task(user.ask("m1", JOKE))
    await crash.llm.until(lambda _: bool(crash.asked(JOKE)))
    await crash.under_way.wait()
    with pytest.raises(aiohttp.ClientError):
        await waiting
    await crash.is_back.wait()
    both = f"{JOKE}\n{WEATHER}"
    assert (await user.ask("m2", WEATHER))["text"] == f"答：{both}"
    assert await user.retry("m1", JOKE) == f"答：{JOKE}"
    assert await user.history() == [both, f"答：{both}\n答：{JOKE}"]
    replies = await user.outbox(until="last")
    assert [message_id for message_id, _ in replies] == ["m2", "m1", "last"]


async def test_every_message_under_way_when_the_gateway_is_killed_takes_effect_once(tmp_path: Path) -> None:
    manifest = tmp_path / "flow.yaml"
    async with scripted_openai() as llm, refund_api() as api, aiohttp.ClientSession() as session:
        manifest.write_text(MANIFEST.format(llm=llm.base_url, api=api.url), encoding="utf-8")
        async with running(str(manifest), "--ephemeral", "--no-reload", folder=tmp_path) as up:
            await up.says(f": {up.url}", START_S)
            crash = Crash(up.url, session, llm, asyncio.Barrier(4))
            llm.default = crash.answer
            async with asyncio.TaskGroup() as users:
                users.create_task(a_streamed_answer_breaks_off(crash))
                users.create_task(a_business_api_is_called_again_under_its_key(crash, api))
                users.create_task(another_message_comes_before_the_retry(crash))
                await crash.under_way.wait()
                up.forget()
                (gateway,) = of_role(up.process.pid, "gateway")
                os.kill(gateway, signal.SIGKILL)
                await up.says("gateway_ready", START_S)
                assert gateway not in of_role(up.process.pid, "gateway")
                crash.is_back.set()


async def test_messages_left_with_a_worker_that_is_killed_are_answered_once_and_in_order(tmp_path: Path) -> None:
    manifest, users = tmp_path / "flow.yaml", [f"user-{number}" for number in range(8)]
    texts = [WEATHER, "你好", POEM, JOKE, "翻译一个词", WEATHER]
    async with scripted_openai() as llm, aiohttp.ClientSession() as session:
        manifest.write_text(MANIFEST.format(llm=llm.base_url, api="http://127.0.0.1:9"), encoding="utf-8")
        async with running(str(manifest), "--ephemeral", "--no-reload", folder=tmp_path) as up:
            await up.says(f": {up.url}", START_S)
            crash = Crash(up.url, session, llm, asyncio.Barrier(1))
            llm.default = crash.answer
            for number, text in enumerate(texts):
                for uid in users:
                    body = {"uid": uid, "message_id": f"m{number}", "text": text}
                    async with session.post(f"{up.url}/v1/messages", json=body) as response:
                        assert response.status == 202, await response.text()
            await llm.until(lambda _: bool(crash.asked(POEM)))
            up.forget()
            (worker,) = of_role(up.process.pid, "worker")
            os.kill(worker, signal.SIGKILL)
            await up.says("worker_ready", START_S)
            kept = await asyncio.gather(*(User(uid, crash).outbox(until="m5") for uid in users))
    for replies in kept:
        assert [message_id for message_id, _ in replies] == [f"m{number}" for number in range(len(texts))]
