"""A gateway for the web's tests: the real application, turn and server over the in-memory twin of the store (held to
the real one by the contract suite). Intents, knowledge, the business API and the language model are scripted."""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
import time
from collections.abc import AsyncGenerator, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import uvicorn
from chatflow_api.runtime_config import ActionConfig, RuntimeConfig, derive
from chatflow_api.v1alpha1 import ChatFlow
from chatflow_runtime.adapters.tokens import SessionTokens
from chatflow_runtime.answerers.cached import AnswerCache
from chatflow_runtime.answerers.dispatch import Dispatcher
from chatflow_runtime.answerers.guard import Guards
from chatflow_runtime.answerers.lane import Lane
from chatflow_runtime.answerers.models import ModelLadder
from chatflow_runtime.domain.admission import Admission
from chatflow_runtime.domain.ladder import MODELS
from chatflow_runtime.domain.moderation import Moderator
from chatflow_runtime.domain.prompt import ChatMessage
from chatflow_runtime.domain.reply import Origin, Usage
from chatflow_runtime.domain.routing import Rules
from chatflow_runtime.domain.texts import texts_for
from chatflow_runtime.errors import ModelAbsent
from chatflow_runtime.metrics import Metrics
from chatflow_runtime.ports import ActionResult, Classification, Clock, Delta, Passage, Query
from chatflow_runtime.state.memory_handoffs import MemoryHandoffs
from chatflow_runtime.state.memory_inbox import MemoryInbox
from chatflow_runtime.state.memory_leases import MemoryLeases
from chatflow_runtime.state.memory_store import MemoryStore
from chatflow_runtime.state.rules import Rules as StateRules
from chatflow_runtime.turn import TurnRunner
from chatflow_runtime.web.admin import Health
from chatflow_runtime.web.app import Entry, create_app
from chatflow_runtime.web.gate import Gate
from chatflow_runtime.web.handoffs import Desk
from chatflow_runtime.web.server import server_config
from chatflow_runtime.web.services import Timing
from chatflow_runtime.webhook_parts import agents_only
from prometheus_client import CollectorRegistry

T = TypeVar("T")

UNLIMITED = {"perUser": {"messages": 0}}
OPEN = {"gateway": {"auth": {"required": False}, "rateLimit": UNLIMITED}}
"""Users are named by uid alone."""
SHOP = {
    "locale": "zh-CN",
    "gateway": {
        **OPEN["gateway"],
        "allowedOrigins": ["https://shop.example.com", "https://*.example.org"],
        "maxTextLength": 500,
    },
    "dialogue": {
        "title": "青禾商城客服",
        "greeting": "您好，我是青禾商城的客服小禾，请问有什么可以帮您？",
        "slots": [{"name": "order", "ask": "请告诉我订单号（QH 加 8 位数字）。", "pattern": "QH[0-9]{8}"}],
        "actions": [
            {
                "name": "order_status",
                "intent": "order_status",
                "slots": ["order"],
                "http": {"url": "http://orders/{order}"},
                "reply": "订单 {order} {response.state}，预计 **{response.eta}** 送达。",
            }
        ],
    },
    "models": {"llm": {"openAI": {"baseURL": "http://llm/v1", "model": "large"}, "firstTokenDeadline": "30s"}},
}
REFUND = Passage(
    "refund-time",
    "退款多久到账？",
    "退款会在审核通过后 **1 到 3 个工作日**原路退回：\n\n- 微信、支付宝：当天到账\n- 银行卡：1 到 3 个工作日",
    0.93,
    "pair",
    "faq.yaml",
    url="https://shop.example.com/help/refund",
)
RETURNS = Passage("return-rule", "七天无理由退货的条件", "商品完好即可退货。", 0.71, "document", "returns.md")
SLOW = "慢慢说"
"""A question in whose answer the language model waits for `Shop.gate` after its first piece."""
MARKUP = "标记"
"""A question that is answered with all the markup that a page must show, and some that it must not obey."""
MARKUP_ANSWER = (
    "## 保修说明\n\n1. 主机保修**两年**\n2. 配件保修 `12` 个月\n\n见 [帮助页](https://shop.example.com/help)",
    " 或 https://shop.example.com/a?b=1。\n<img src=x onerror=\"document.title='hacked'\"><b>粗体</b>",
    " [点我](javascript:alert(1))",
)
ANSWER = ("您好，", "我们的吉祥物叫**禾禾**，", "是一株会走路的稻苗。", Usage(20, 8))


@dataclass
class Shop:
    """The scripted parts, which tests look into."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    prompts: list[Sequence[ChatMessage]] = field(default_factory=list)
    begun: threading.Event = field(default_factory=threading.Event)
    closed: threading.Event = field(default_factory=threading.Event)
    """Set when an answer of the language model has ended, by itself or by being cancelled."""
    fault: Exception | None = None
    """Raised by every classification while it is set."""
    is_asleep: bool = False
    """Whether no server of the language model runs."""
    version: str = "1"
    revision: str = "1"
    name: str = "large"

    async def classify(self, text: str) -> Classification:
        """Knows the words that matter."""
        if self.fault is not None:
            raise self.fault
        for word, intent in (("退款", "refund"), ("订单", "order_status")):
            if word in text:
                return Classification(intent, 0.9734, is_in_scope=True)
        return Classification("refund", 0.31, is_in_scope=False)

    async def search(self, query: Query, top_k: int) -> Sequence[Passage]:
        """Two entries about refunds, nothing else."""
        return [REFUND, RETURNS][:top_k] if "退款" in query.text else []

    async def call(self, action: ActionConfig, slots: Mapping[str, str], message_id: str) -> ActionResult:
        """Every order is on its way."""
        assert action.name == "order_status"
        assert slots["order"]
        assert message_id
        return ActionResult(True, {"state": "已发货", "eta": "明天 18:00 前"})

    async def stream(self, messages: Sequence[ChatMessage]) -> AsyncGenerator[Delta | Usage, None]:
        """Plays its lines."""
        if self.is_asleep:
            raise ModelAbsent("no server runs")
        self.prompts.append(messages)
        question = messages[-1].content
        try:
            for line in MARKUP_ANSWER if MARKUP in question else ANSWER:
                yield line if isinstance(line, Usage) else Delta(line)
                self.begun.set()
                if SLOW in question:
                    await self.gate.wait()
        finally:
            self.closed.set()


AGENT_KEY = "the-key-of-the-desk"


class Gateway:
    """One gateway in a thread of its own. Stopped and started again, it keeps its port and its conversations."""

    def __init__(self, spec: Mapping[str, object], timing: Timing, api_keys: frozenset[bytes] = frozenset()) -> None:
        manifest = {"apiVersion": "chatflow.dev/v1alpha1", "kind": "ChatFlow", "metadata": {"name": "shop"}}
        self.config: RuntimeConfig = derive(ChatFlow.model_validate({**manifest, "spec": spec}))
        self.ahead_ms = 0
        """How far the gateway's wall clock is ahead."""
        self.clock = Clock(lambda: time.time_ns() // 1_000_000 + self.ahead_ms, time.monotonic)
        self.registry = CollectorRegistry()
        self.shop = Shop()
        texts = texts_for(self.config)
        rules = StateRules.of(self.config)
        self.store = MemoryStore(rules, self.clock, texts.notice)
        self.health = Health()
        metrics = Metrics(self.registry)
        moderator = Moderator.build(["坏词"], refusal=texts.refusal)
        lanes = {origin: Lane(origin, metrics) for origin in MODELS}
        dispatcher = Dispatcher(
            config=self.config,
            rules=Rules.of(self.config),
            texts=texts,
            retriever=self.shop,
            models=ModelLadder({Origin.LLM: self.shop}, moderator, metrics, texts.broken_off, Guards(metrics), lanes),
            actions=self.shop,
            cache=AnswerCache(100, 300.0, self.clock.monotonic_s),
            metrics=metrics,
            clock=self.clock,
        )
        owners = itertools.count()
        self.runner = TurnRunner(
            self.store,
            self.shop,
            dispatcher,
            moderator,
            metrics,
            new_owner=lambda: f"owner-{next(owners)}",
            max_wait_s=self.config.gateway.queue_wait_s,
            admission=Admission(self.config.degradation.backlog_limit, self.config.degradation.shed_fraction),
        )
        self.leases = MemoryLeases(rules, self.clock)
        self.inbox = MemoryInbox(rules, self.store, self.leases)
        now_s = lambda: self.clock.now_ms() / 1000  # noqa: E731
        self.sessions = SessionTokens(self.config.flow.key, self.config.gateway.auth.session_ttl_s, now_s)
        self.sessions.use([b"a key that only the gateways of this flow have"])
        self.gate = Gate(self.config.gateway.auth.required, api_keys, [self.sessions], now_s)
        entry = Entry(self.gate, self.sessions, self.runner.admission)
        desk = None
        if self.config.dialogue.handoff is not None:
            desk = Desk(MemoryHandoffs(self.store), agents_only([AGENT_KEY, "another-key-of-agents"]), texts.returned)
        self._app = create_app(
            self.config, self.runner, self.store, self.inbox, metrics, self.clock, entry, self.health, timing, desk
        )
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.base_url = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Serve, from when this returns."""
        self._server = uvicorn.Server(server_config(self._app, "127.0.0.1", self.port, drain_s=1))
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._is_up.wait(20), "the gateway does not start"

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.call_soon(self._announce)
        await self._server.serve()

    def _announce(self) -> None:
        if self._server.started:
            self._is_up.set()
        else:
            self._loop.call_later(0.01, self._announce)

    def stop(self) -> None:
        """Stop at once: open connections are cut."""
        self.cut()
        self._server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive(), "the gateway does not stop"

    def cut(self) -> None:
        """Cut every open connection, as a failing proxy would."""

        def abort() -> None:
            for connection in list(self._server.server_state.connections):
                transport: asyncio.Transport = connection.transport
                transport.abort()

        self._loop.call_soon_threadsafe(abort)

    def drain(self) -> None:
        """What happens on SIGTERM, before the server is told to stop."""
        self._loop.call_soon_threadsafe(self.health.drain)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something on the gateway's own event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin something on the gateway's own event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run_apart(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something while the gateway is stopped, as another gateway of the same flow would."""
        with ThreadPoolExecutor(1) as apart:
            return apart.submit(asyncio.run, work).result(20)

    def open_gate(self) -> None:
        """Let slow answers go on."""
        self._loop.call_soon_threadsafe(self.shop.gate.set)

    def close_gate(self) -> None:
        """Make slow answers wait again."""
        self._loop.call_soon_threadsafe(self.shop.gate.clear)

    def sample(self, name: str, **labels: str) -> float:
        """The value of a metric, 0 when it has none yet."""
        return self.registry.get_sample_value(name, labels) or 0.0


@contextmanager
def running_gateway(
    spec: Mapping[str, object] = SHOP, timing: Timing | None = None, api_keys: frozenset[bytes] = frozenset()
) -> Iterator[Gateway]:
    """A gateway while the context lasts."""
    gateway = Gateway(spec, timing or Timing(reread_s=0.2, pulse_s=0.3), api_keys)
    gateway.start()
    try:
        yield gateway
    finally:
        gateway.stop()
