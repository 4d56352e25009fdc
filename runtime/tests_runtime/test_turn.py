"""Turns, through the runner's public method, over the in-memory twin of the state store (held to the real one by the
contract suite) and the real routing, ladder, cache and moderation. Models and business calls are scripted."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import pytest
from chatflow_api.runtime_config import ActionConfig, RuntimeConfig, derive
from chatflow_api.v1alpha1 import ChatFlow, WhileBusy
from chatflow_runtime.answerers.cached import AnswerCache
from chatflow_runtime.answerers.dispatch import Dispatcher
from chatflow_runtime.answerers.guard import Guards
from chatflow_runtime.answerers.lane import Lane
from chatflow_runtime.answerers.models import ModelLadder
from chatflow_runtime.domain.admission import Admission
from chatflow_runtime.domain.concurrency import LimitRules
from chatflow_runtime.domain.conversation import Message, Scene
from chatflow_runtime.domain.ladder import MODELS
from chatflow_runtime.domain.moderation import Moderator
from chatflow_runtime.domain.prompt import ChatMessage
from chatflow_runtime.domain.reply import Origin, Reply, Rung, Usage
from chatflow_runtime.domain.routing import Rules
from chatflow_runtime.domain.texts import texts_for
from chatflow_runtime.errors import (
    ActionFailed,
    ArtefactInvalid,
    ClaimLost,
    FirstTokenLate,
    Interrupted,
    InvalidMessage,
    ModelError,
    Shed,
    TokenGapTooLong,
)
from chatflow_runtime.metrics import Metrics
from chatflow_runtime.ports import (
    MISSED,
    ActionResult,
    Classification,
    Clock,
    Delta,
    LanguageModel,
    Passage,
    Query,
    Turn,
)
from chatflow_runtime.state.memory_store import MemoryStore
from chatflow_runtime.state.rules import Rules as StateRules
from chatflow_runtime.turn import TurnRunner
from prometheus_client import CollectorRegistry

FLOW = {
    "apiVersion": "chatflow.dev/v1alpha1",
    "kind": "ChatFlow",
    "metadata": {"name": "shop"},
    "spec": {
        "dialogue": {
            "slots": [{"name": "order", "ask": "请告诉我订单号。", "pattern": "[A-Z]{2}[0-9]{8}"}],
            "actions": [
                {
                    "name": "status",
                    "intent": "order_status",
                    "slots": ["order"],
                    "http": {"url": "http://orders/{order}"},
                    "reply": "订单 {order} {response.state}。",
                    "notFound": "没有查到 {order}。",
                    "failure": "订单系统暂时没有回应。",
                }
            ],
        },
        "models": {
            "llm": {"openAI": {"baseURL": "http://llm/v1", "model": "large"}},
            "backup": {"openAI": {"baseURL": "http://backup/v1", "model": "small"}},
        },
    },
}
REFUND = Passage("refund-time", "退款多久到账？", "1 到 3 个工作日原路退回。", 0.9, "pair", "faq.yaml")


@dataclass
class Intents:
    """Knows the words that matter."""

    version: str = "1"
    asked: list[str] = field(default_factory=list)
    is_broken: bool = False
    is_late: bool = False

    async def classify(self, text: str) -> Classification:
        self.asked.append(text)
        if self.is_broken:
            raise ArtefactInvalid("the intent model cannot classify")
        if self.is_late:
            return MISSED
        for word, intent in (("退款", "refund"), ("订单", "order_status")):
            if word in text:
                return Classification(intent, 0.97, is_in_scope=True)
        return Classification("refund", 0.3, is_in_scope=False)


@dataclass
class OneEntry:
    """A knowledge base of one entry."""

    revision: str = "1"

    async def search(self, query: Query, top_k: int) -> Sequence[Passage]:  # noqa: ARG002  The port's signature.
        return [REFUND if "退款" in query.text else msgspec.structs.replace(REFUND, score=0.1)]


@dataclass
class Orders:
    """A business API."""

    result: ActionResult | ActionFailed = field(default_factory=lambda: ActionResult(True, {"state": "已发货"}))
    calls: list[tuple[str, str]] = field(default_factory=list)

    async def call(self, action: ActionConfig, slots: Mapping[str, str], effect_id: str) -> ActionResult:
        self.calls.append((action.name, slots["order"]))
        assert effect_id
        if isinstance(self.result, ActionFailed):
            raise self.result
        return self.result


@dataclass
class Script:
    """A language model that plays its lines; an exception among them is raised, an event waited for."""

    name: str
    lines: Sequence[str | ModelError | asyncio.Event | Usage]
    prompts: list[Sequence[ChatMessage]] = field(default_factory=list)
    closed: int = 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def stream(self, messages: Sequence[ChatMessage]) -> AsyncGenerator[Delta | Usage, None]:
        self.prompts.append(messages)
        self.asked.set()
        try:
            for line in self.lines:
                if isinstance(line, ModelError):
                    raise line
                if isinstance(line, asyncio.Event):
                    await line.wait()
                else:
                    yield line if isinstance(line, Usage) else Delta(line)
        finally:
            self.closed += 1


@dataclass
class Pieces:
    """A client that streams; it leaves after `patience` pieces."""

    patience: int = 10**9
    taken: list[str] = field(default_factory=list)
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    async def delta(self, text: str) -> None:
        if len(self.taken) >= self.patience:
            raise ConnectionResetError("the client has left")
        self.taken.append(text)
        self.begun.set()


@dataclass
class Bench:
    """A runner and everything around it."""

    llm: Script = field(default_factory=lambda: Script("large", ["您好，", "这个我查一下。", Usage(20, 8)]))
    backup: Script = field(default_factory=lambda: Script("small", ["备用回答。"]))
    orders: Orders = field(default_factory=Orders)
    intents: Intents = field(default_factory=Intents)
    now_ms: int = 1_700_000_000_000
    config: RuntimeConfig = field(default_factory=lambda: derive(ChatFlow.model_validate(FLOW)))
    words: Sequence[str] = ()
    has_models: bool = True

    def __post_init__(self) -> None:
        clock = Clock(now_ms=lambda: self.now_ms, monotonic_s=lambda: self.now_ms / 1000)
        self.texts = texts_for(self.config)
        self.rules = StateRules.of(self.config)
        self.store = MemoryStore(self.rules, clock, self.texts.notice)
        metrics = Metrics(CollectorRegistry())
        moderator = Moderator.build(self.words, refusal=self.texts.refusal)
        models: dict[Origin, LanguageModel] = {Origin.LLM: self.llm, Origin.BACKUP: self.backup}
        bounds = self.config.degradation.concurrency
        limits = LimitRules(bounds.least, bounds.most, bounds.first)
        lanes = {origin: Lane(origin, metrics, limits) for origin in MODELS}
        dispatcher = Dispatcher(
            config=self.config,
            rules=Rules.of(self.config),
            texts=self.texts,
            retriever=OneEntry(),
            models=ModelLadder(
                models if self.has_models else {}, moderator, metrics, self.texts.broken_off, Guards(metrics), lanes
            ),
            actions=self.orders,
            cache=AnswerCache(100, 300.0, clock.monotonic_s),
            metrics=metrics,
            clock=clock,
        )
        owners = itertools.count()
        self.runner = TurnRunner(
            self.store,
            self.intents,
            dispatcher,
            moderator,
            metrics,
            new_owner=lambda: f"owner-{next(owners)}",
            max_wait_s=self.config.gateway.queue_wait_s,
            admission=Admission(self.config.degradation.backlog_limit, self.config.degradation.shed_fraction),
        )
        self.ids = itertools.count(1)

    async def say(self, text: str, message_id: str | None = None, sink: Pieces | None = None) -> Reply:
        item = await self.runner.answer("u1", message_id or f"m{next(self.ids)}", text, sink)
        assert isinstance(item.item, Reply)
        return item.item


async def test_a_conversation_remembers_acts_cites_and_ends_with_a_rating() -> None:
    bench = Bench()
    greeted = await bench.say("你好")
    assert (greeted.origin, greeted.scene) == (Origin.DIALOGUE, Scene.GREETING)
    asked = await bench.say("帮我查订单")
    assert (asked.text, asked.slot, asked.scene) == ("请告诉我订单号。", "order", Scene.COLLECT)
    aside = await bench.say("对了，退款多久到账")
    assert aside.text.startswith(REFUND.text)
    assert aside.text.endswith("请告诉我订单号。")
    assert aside.citations[0].id == "refund-time"
    acted = await bench.say("QH20250001")
    assert (acted.text, acted.origin, acted.scene) == ("订单 QH20250001 已发货。", Origin.ACTION, Scene.ANSWER)
    again = await bench.say("订单呢")
    assert again.text == acted.text
    generated = await bench.say("你们的吉祥物叫什么")
    assert (generated.origin, generated.rung, generated.usage) == (Origin.LLM, Rung.L1, Usage(20, 8))
    thanked = await bench.say("谢谢，解决了")
    assert (thanked.scene, thanked.rating_scale) == (Scene.EVALUATE, 5)
    rated = await bench.say("5分")
    assert rated.scene is Scene.END
    kinds = [record.kind for number in range(256) for record in await bench.store.records(number, 10)]
    assert sorted(kinds) == ["labelling", "rating"]
    assert bench.orders.calls == [("status", "QH20250001"), ("status", "QH20250001")]


async def test_what_is_kept_for_labelling_holds_no_personal_data() -> None:
    bench = Bench()
    await bench.say("吉祥物能打13800138000叫醒我吗")
    (kept,) = [record for number in range(256) for record in await bench.store.records(number, 10)]
    assert kept.fields["text"] == "吉祥物能打[phone]叫醒我吗"
    assert any("13800138000" in message.content for message in bench.llm.prompts[0])


async def test_the_model_is_shown_what_was_said_before() -> None:
    bench = Bench()
    await bench.say("退款多久到账")
    await bench.say("能不能再快一点呢")
    contents = [message.content for message in bench.llm.prompts[0]]
    assert any("1 到 3 个工作日" in content for content in contents)
    assert any(content == "退款多久到账" for content in contents)


@pytest.mark.parametrize(
    ("llm", "backup", "origin", "text", "is_partial"),
    [
        pytest.param([FirstTokenLate("late")], ["备用。"], Origin.BACKUP, "备用。", False, id="late: backup"),
        pytest.param(
            [FirstTokenLate("late")], [ModelError("down")], Origin.STATIC, None, False, id="both down: static reply"
        ),
        pytest.param(
            ["正在", TokenGapTooLong("gap")], ["备用。"], Origin.LLM, "正在", True, id="broken off: never another model"
        ),
    ],
)
async def test_the_ladder_gives_way_rung_by_rung(
    llm: list[str | ModelError], backup: list[str | ModelError], origin: Origin, text: str | None, is_partial: bool
) -> None:
    bench = Bench(llm=Script("large", llm), backup=Script("small", backup))
    sink = Pieces()
    reply = await bench.say("你们的吉祥物叫什么", sink=sink)
    assert (reply.origin, reply.is_partial) == (origin, is_partial)
    assert reply.text.startswith(bench.texts.busy if text is None else text)
    assert "".join(sink.taken) == ("" if origin is Origin.STATIC else reply.text)
    if is_partial:
        assert reply.text.endswith(bench.texts.broken_off)
        assert not bench.backup.prompts


async def test_without_a_model_the_flow_says_that_it_does_not_know() -> None:
    reply = await Bench(has_models=False).say("你们的吉祥物叫什么")
    assert (reply.rung, reply.origin) == (Rung.L2, Origin.STATIC)


async def test_a_message_takes_effect_once_however_often_it_is_sent() -> None:
    gate = asyncio.Event()
    bench = Bench(llm=Script("large", [gate, "好的。"]))
    first = asyncio.create_task(bench.say("你们的吉祥物叫什么", "m1"))
    attached = asyncio.create_task(bench.say("你们的吉祥物叫什么", "m1"))
    gate.set()
    replies = [await first, await attached, await bench.say("你们的吉祥物叫什么", "m1")]
    assert replies[0] == replies[1] == replies[2]
    assert len(bench.llm.prompts) == 1
    assert [message.role for message in await bench.store.history("u1")] == ["user", "assistant"]


async def test_messages_of_one_user_are_answered_in_order() -> None:
    gate = asyncio.Event()
    bench = Bench(llm=Script("large", [gate, "好的。"]))
    tasks = []
    for number in range(5):
        tasks.append(asyncio.create_task(bench.say(f"第{number}个问题", f"n{number}")))
        await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(*tasks)
    said = [message.text for message in await bench.store.history("u1") if message.role == "user"]
    assert said == [f"第{number}个问题" for number in range(5)]


async def test_a_newer_message_interrupts_where_the_scene_says_so() -> None:
    config = derive(ChatFlow.model_validate(FLOW))
    policies = {**config.dialogue.while_busy, "greeting": WhileBusy.INTERRUPT}
    dialogue = config.dialogue.model_copy(update={"while_busy": policies})
    bench = Bench(
        llm=Script("large", ["正在", asyncio.Event()]), config=config.model_copy(update={"dialogue": dialogue})
    )
    sink = Pieces()
    first = asyncio.create_task(bench.say("你们的吉祥物叫什么", "m1", sink))
    await sink.begun.wait()
    second = await bench.say("退款多久到账", "m2")
    assert second.origin is Origin.KNOWLEDGE
    with pytest.raises(Interrupted):
        await first
    assert bench.llm.closed == 1
    assert (await bench.store.history("u1"))[0].text == "你们的吉祥物叫什么"
    bench.llm.lines = ["禾禾。"]
    assert (await bench.say("你们的吉祥物叫什么", "m1")).text == "禾禾。"
    shown = [message.content for message in bench.llm.prompts[-1] if "吉祥物" in message.content]
    assert shown == ["你们的吉祥物叫什么"]


@pytest.mark.parametrize("policy", WhileBusy)
async def test_a_claim_that_no_newer_message_has_taken_is_no_interruption(policy: WhileBusy) -> None:
    config = derive(ChatFlow.model_validate(FLOW))
    dialogue = config.dialogue.model_copy(update={"while_busy": dict.fromkeys(config.dialogue.while_busy, policy)})
    gate = asyncio.Event()
    bench = Bench(llm=Script("large", [gate, "禾禾。"]), config=config.model_copy(update={"dialogue": dialogue}))
    turn = asyncio.create_task(bench.say("你们的吉祥物叫什么", "m1"))
    await bench.llm.asked.wait()
    # As a failover does that forgets the claim.
    await bench.store.release(Turn("u1", "m1", "owner-0", "你们的吉祥物叫什么"))
    gate.set()
    assert (await turn).text == "禾禾。"


async def test_a_model_s_citation_carries_the_number_that_its_text_uses() -> None:
    bench = Bench(llm=Script("large", ["一般三天[1]，", "详见[2]。"]))
    reply = await bench.say("钱什么时候能拿回来呢")
    assert [(citation.id, citation.number) for citation in reply.citations] == [("refund-time", 1)]


async def test_a_claim_lost_before_the_first_piece_is_decided_again_and_after_it_never() -> None:
    gate = asyncio.Event()
    bench = Bench(llm=Script("large", [gate, "好的。"]))
    turn = asyncio.create_task(bench.say("你们的吉祥物叫什么", "m1"))
    await bench.llm.asked.wait()
    bench.now_ms += bench.rules.lease_ms + 1
    await bench.store.load(Turn("u1", "m1", "thief", "你们的吉祥物叫什么"))
    bench.now_ms += bench.rules.lease_ms + 1
    gate.set()
    assert (await turn).text == "好的。"
    assert len(bench.llm.prompts) == 2

    held = asyncio.Event()
    bench = Bench(llm=Script("large", ["正在", held]))
    sink = Pieces()
    turn = asyncio.create_task(bench.say("你们的吉祥物叫什么", "m1", sink))
    await sink.begun.wait()
    bench.now_ms += bench.rules.lease_ms + 1
    await bench.store.load(Turn("u1", "m1", "thief", "你们的吉祥物叫什么"))
    held.set()
    with pytest.raises(ClaimLost):
        await turn


async def test_a_user_who_leaves_ends_the_request_and_may_come_back() -> None:
    bench = Bench(llm=Script("large", ["一", "二", "三"]))
    with pytest.raises(ConnectionError):
        await bench.say("你们的吉祥物叫什么", "m1", Pieces(patience=1))
    assert bench.llm.closed == 1
    assert (await bench.say("你们的吉祥物叫什么", "m1")).text == "一二三"
    assert bench.runner.admission.under_way == 0


async def test_cancelling_a_turn_gives_its_claim_back() -> None:
    bench = Bench(llm=Script("large", ["一", asyncio.Event()]))
    sink = Pieces()
    task = asyncio.create_task(bench.say("你们的吉祥物叫什么", "m1", sink))
    await sink.begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.llm.closed == 1
    assert (await bench.say("退款多久到账", "m2")).origin is Origin.KNOWLEDGE


async def test_new_conversations_are_shed_above_the_limit_and_others_kept() -> None:
    config = derive(ChatFlow.model_validate(FLOW))
    limits = config.degradation.model_copy(update={"backlog_limit": 1, "shed_fraction": 1.0})
    bench = Bench(config=config.model_copy(update={"degradation": limits}))
    await bench.say("你好")
    bench.runner.admission.elsewhere = 10
    assert (await bench.say("退款多久到账")).origin is Origin.KNOWLEDGE
    with pytest.raises(Shed):
        await bench.runner.answer("u2", "m1", "退款多久到账")
    earlier = (Message("user", "你好", 1, "a"), Message("assistant", "您好！", 2, "a"))
    assert (await bench.runner.answer("u3", "m1", "退款多久到账", history=earlier)).item, "under way elsewhere"
    bench.now_ms += bench.rules.ttl_ms + 1
    with pytest.raises(Shed):
        await bench.say("退款多久到账")
    bench.runner.admission.elsewhere = 0
    assert (await bench.runner.answer("u2", "m1", "退款多久到账")).item


async def test_where_models_have_no_place_the_new_are_shed_and_the_others_get_the_next_rung() -> None:
    config = derive(ChatFlow.model_validate(FLOW))
    one = config.degradation.concurrency.model_copy(update={"least": 1, "most": 1, "first": 1})
    limits = config.degradation.model_copy(update={"concurrency": one})
    gates = [asyncio.Event(), asyncio.Event()]
    bench = Bench(
        config=config.model_copy(update={"degradation": limits}),
        llm=Script("large", ["一", gates[0]]),
        backup=Script("small", ["二", gates[1]]),
    )
    await bench.say("你好")
    slow = []
    for number in range(2):
        sink = Pieces()
        task = asyncio.create_task(bench.runner.answer(f"busy-{number}", "m1", "你们的吉祥物叫什么", sink))
        await sink.begun.wait()
        slow.append(task)
    # Its answers are on their way from both models, one each.
    with pytest.raises(Shed):
        await bench.runner.answer("new", "m1", "你们的吉祥物叫什么")
    assert (await bench.runner.answer("new", "m2", "退款多久到账")).item
    busy = await bench.say("你们的吉祥物叫什么")
    assert (busy.origin, busy.retry_after_s) == (Origin.STATIC, 5)
    for gate in gates:
        gate.set()
    origins = [(await task).item for task in slow]
    assert [item.origin for item in origins if isinstance(item, Reply)] == [Origin.LLM, Origin.BACKUP]
    assert isinstance((await bench.runner.answer("new", "m1", "你们的吉祥物叫什么")).item, Reply)


async def test_a_number_that_led_nowhere_is_asked_for_again() -> None:
    bench = Bench()
    bench.orders.result = ActionResult(False)
    await bench.say("帮我查订单")
    assert "QH20250009" in (await bench.say("QH20250009")).text
    assert (await bench.say("帮我查订单")).slot == "order"


async def test_a_question_without_its_classification_goes_by_retrieval_and_leaves_nothing_behind() -> None:
    bench = Bench(intents=Intents(is_late=True))
    known = await bench.say("我的订单，退款多久到账")
    assert (known.origin, known.intent) == (Origin.KNOWLEDGE, None)
    assert (await bench.say("你们的吉祥物叫什么")).origin is Origin.LLM
    assert not [record for number in range(256) for record in await bench.store.records(number, 10)]
    bench.intents.is_late = False
    # Kept, that answer would stand in the way of what the question is about.
    assert (await bench.say("我的订单，退款多久到账")).intent == "refund"


async def test_an_answer_is_kept_under_the_model_that_led_to_it() -> None:
    class Replicas(Intents):
        async def classify(self, text: str) -> Classification:
            return msgspec.structs.replace(await super().classify(text), version="2")

    bench = Bench(intents=Replicas())
    await bench.say("退款多久到账")
    assert (await bench.say("退款多久到账")).origin is Origin.KNOWLEDGE
    bench.intents.version = "2"
    assert (await bench.say("退款多久到账")).origin is Origin.CACHE


async def test_a_classification_that_fails_leaves_no_claim_behind() -> None:
    bench = Bench(intents=Intents(is_broken=True))
    with pytest.raises(ArtefactInvalid):
        await bench.say("退款多久到账", "m1")
    bench.intents.is_broken = False
    assert (await bench.say("退款多久到账", "m1")).origin is Origin.KNOWLEDGE


async def test_what_is_asked_again_comes_from_the_cache_but_never_an_action() -> None:
    bench = Bench()
    first, second = await bench.say("退款多久到账"), await bench.say("退款多久到账")
    assert (first.origin, second.origin) == (Origin.KNOWLEDGE, Origin.CACHE)
    assert (first.text, first.citations, first.intent) == (second.text, second.citations, second.intent)
    assert len(bench.intents.asked) == 1
    await bench.say("订单 QH20250001")
    assert (await bench.say("订单 QH20250001")).origin is Origin.ACTION
    bench.now_ms += 301_000
    assert (await bench.say("退款多久到账")).origin is Origin.KNOWLEDGE


@pytest.mark.parametrize(
    ("result", "text"),
    [
        pytest.param(ActionResult(False), "没有查到 QH20250001。", id="not found"),
        pytest.param(ActionFailed("down"), "订单系统暂时没有回应。", id="failed"),
        pytest.param(ActionResult(True, {"other": 1}), "订单系统暂时没有回应。", id="an answer without the field"),
    ],
)
async def test_an_action_that_fails_says_so(result: ActionResult | ActionFailed, text: str) -> None:
    bench = Bench(orders=Orders(result))
    assert (await bench.say("订单 QH20250001")).text == text


async def test_listed_words_are_refused_in_questions_and_kept_out_of_streams() -> None:
    bench = Bench(words=["坏词"], llm=Script("large", ["前面坏", "词后面"]))
    refused = await bench.say("你这个坏词")
    assert refused.text == bench.texts.refusal
    assert not bench.intents.asked
    sink = Pieces()
    reply = await bench.say("你们的吉祥物叫什么", sink=sink)
    assert "坏词" not in reply.text
    assert "".join(sink.taken) == reply.text
    assert "坏词" not in str(await bench.store.history("u1"))


async def test_a_text_without_a_visible_character_is_refused() -> None:
    with pytest.raises(InvalidMessage):
        await Bench().say("\u200b \n")


async def test_a_history_that_a_client_sends_along_is_moderated_as_the_stored_one_is() -> None:
    bench = Bench(words=["坏词"])
    history = (Message("user", "坏词怎么做", 0, "m0"), Message("assistant", "不说坏词", 0, "m0"))
    await bench.runner.answer("u1", "m1", "接着说", None, history)
    assert not any("坏词" in message.content for message in bench.llm.prompts[-1])
