"""A conversation that a person takes over, through a served gateway: the user's side, and the desk's."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any

import aiohttp
import pytest
from chatflow_api.names import partition
from chatflow_runtime.domain.conversation import Conversation
from chatflow_runtime.domain.deliveries import HandoffEnded, HandoffMessage, HandoffRequested, Told
from chatflow_runtime.domain.reply import Notice
from chatflow_runtime.errors import ChatFlowError
from chatflow_runtime.ports import Committed, Loaded, Outcome, Turn, Word
from chatflow_runtime.state.memory_handoffs import MemoryHandoffs
from chatflow_runtime.state.memory_store import MemoryStore
from chatflow_runtime.web.services import Timing
from hypothesis import given, settings
from hypothesis import strategies as st
from tests_runtime.web_clients import events, new_user
from tests_runtime.web_gateway import AGENT_KEY, SHOP, Gateway, running_gateway

DESK = {
    "webhook": {"url": "http://desk.example.com/hook", "secretRef": {"name": "desk", "key": "hook"}},
    "agentSecretRef": {"name": "desk", "key": "agents"},
    "intent": "refund",
    "phrases": ["Hilfe!", "!!!", "我要找老闆"],
}


def spec(**handoff: object) -> Mapping[str, Any]:
    dialogue: dict[str, object] = {**SHOP["dialogue"], "handoff": {**DESK, **handoff}}  # type: ignore[dict-item]
    return {**SHOP, "dialogue": dialogue}


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with running_gateway(spec()) as running:
        yield running


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(gateway.base_url) as session:
        yield session


async def say(client: aiohttp.ClientSession, uid: str, text: str, message_id: str | None = None) -> dict[str, Any]:
    body = {"uid": uid, "text": text} | ({} if message_id is None else {"message_id": message_id})
    async with client.post("/v1/chat", json=body) as response:
        assert response.status == 200, await response.text()
        found: dict[str, Any] = await response.json()
        return found


async def ask_desk(
    client: aiohttp.ClientSession, uid: str, path: str = "", body: object = None, key: str | None = AGENT_KEY
) -> tuple[int, Any, Mapping[str, str]]:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    method = "POST" if path else "GET"
    data = body if isinstance(body, bytes) else None
    async with client.request(
        method, f"/v1/handoffs/{uid}{path}", json=None if data is not None else body, data=data, headers=headers
    ) as response:
        return response.status, await response.json(), response.headers


def told(gateway: Gateway, uid: str) -> list[tuple[str | None, Told]]:
    """What the desk is to be told of a user."""
    waiting = gateway.store.hooks.of(partition(uid)).waiting.values()
    return [(one.handoff_id, one.told) for user, one in waiting if user == uid]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("转人工", "phrase"),
        ("您好，请转人工！", "phrase"),
        ("Can I talk to a human?", "phrase"),
        ("hilfe", "phrase"),
        ("我要找老板", "phrase"),
        ("退款怎么还没到", "intent"),
    ],
)
async def test_whoever_asks_for_a_person_is_handed_over_with_the_whole_conversation(
    gateway: Gateway, client: aiohttp.ClientSession, text: str, reason: str
) -> None:
    uid = new_user()
    await say(client, uid, "你们的吉祥物叫什么", "m1")
    reply = await say(client, uid, text, "m2")
    assert (reply["scene"], reply["origin"], reply["rung"]) == ("handoff", "dialogue", "L0")
    assert reply["text"] == "好的，正在为您转接人工客服，请稍候。您可以继续留言，客服会看到完整的对话。"
    ((handoff, asked),) = told(gateway, uid)
    assert isinstance(asked, HandoffRequested)
    assert (asked.uid, asked.message_id, asked.reason, asked.scene) == (uid, "m2", reason, "answer")
    assert [message.role for message in asked.transcript] == ["user", "assistant", "user"]
    assert (asked.transcript[0].text, asked.transcript[-1].message_id) == ("你们的吉祥物叫什么", "m2")
    assert not asked.is_cut
    assert handoff is not None


@pytest.mark.parametrize("text", ["!!!", "人工智能是什么", "Where can I talk to a human resources person?"])
async def test_what_only_looks_like_it_is_answered_by_the_bot(
    gateway: Gateway, client: aiohttp.ClientSession, text: str
) -> None:
    uid = new_user()
    assert (await say(client, uid, text))["scene"] == "answer"
    assert not told(gateway, uid)


async def test_a_slot_question_gives_way_and_what_was_collected_is_handed_over(
    gateway: Gateway, client: aiohttp.ClientSession
) -> None:
    uid = new_user()
    assert (await say(client, uid, "查一下订单"))["slot"] == "order"
    assert (await say(client, uid, "订单 QH12345678"))["origin"] == "action"
    assert (await say(client, uid, "转人工"))["scene"] == "handoff"
    ((_, asked),) = told(gateway, uid)
    assert isinstance(asked, HandoffRequested)
    assert asked.slots == {"order": "QH12345678"}


async def test_while_a_person_answers_the_bot_is_silent_and_passes_everything_on(
    gateway: Gateway, client: aiohttp.ClientSession
) -> None:
    uid = new_user()
    await say(client, uid, "转人工", "m1")
    prompts = len(gateway.shop.prompts)
    for number, text in enumerate(("退款多久到账", "转人工", "讲个笑话"), start=2):
        reply = await say(client, uid, text, f"m{number}")
        assert (reply["text"], reply["origin"], reply["rung"], reply["scene"]) == ("", "handoff", "L0", "handoff")
        assert await say(client, uid, text, f"m{number}") == reply
    assert len(gateway.shop.prompts) == prompts
    (first, asked), *rest = told(gateway, uid)
    assert isinstance(asked, HandoffRequested)
    assert {handoff for handoff, _ in rest} == {first}
    assert [one.message.text for _, one in rest if isinstance(one, HandoffMessage)] == [
        "退款多久到账",
        "转人工",
        "讲个笑话",
    ]


async def test_moderation_stays_between_user_and_person(gateway: Gateway, client: aiohttp.ClientSession) -> None:
    uid = new_user()
    await say(client, uid, "转人工")
    refused = await say(client, uid, "你这个坏词")
    assert (refused["origin"], refused["scene"]) == ("dialogue", "handoff")
    assert len(told(gateway, uid)) == 1


async def test_a_person_speaks_and_gives_the_conversation_back(client: aiohttp.ClientSession) -> None:
    uid = f"{new_user()}/with a slash".replace(" ", "-")
    async with client.get("/v1/events", params={"uid": uid, "last_event_id": "0"}) as stream:
        coming = events(stream)
        await say(client, uid, "转人工", "m1")
        assert (await anext(coming)).data["message_id"] == "m1"
        word = {"message_id": "a1", "text": "您好，我是小周", "agent": "小周"}
        status, kept, _ = await ask_desk(client, uid, "/messages", word)
        assert status == 200
        assert (await ask_desk(client, uid, "/messages", word))[1] == kept
        event = await anext(coming)
        assert (event.kind, event.id) == ("notice", kept["id"])
        assert {name: event.data[name] for name in ("kind", "text", "agent", "message_id")} == {
            "kind": "agent",
            "text": "您好，我是小周",
            "agent": "小周",
            "message_id": "a1",
        }
        await say(client, uid, "谢谢", "m2")
        assert (await anext(coming)).data["text"] == ""
        status, view, _ = await ask_desk(client, uid)
        assert (status, view["uid"], view["scene"]) == (200, uid, "handoff")
        assert view["handoff_id"].startswith("h-")
        said = [(message["role"], message["text"], message["agent"]) for message in view["transcript"]]
        assert said[0] == ("user", "转人工", None)
        assert said[2:] == [("agent", "您好，我是小周", "小周"), ("user", "谢谢", None)]
        status, _, _ = await ask_desk(client, uid, "/return")
        assert status == 200
        event = await anext(coming)
        assert (event.data["kind"], event.data["text"]) == (
            "returned",
            "人工服务已结束，接下来由智能客服继续为您服务。",
        )
        await coming.aclose()
    assert (await say(client, uid, "讲个笑话"))["origin"] == "llm"
    status, problem, _ = await ask_desk(client, uid, "/messages", {**word, "message_id": "a2"})
    assert (status, problem["code"]) == (409, "not_handed_over")
    assert (await ask_desk(client, uid))[1]["handoff_id"] is None


async def test_a_second_handover_is_another_one(gateway: Gateway, client: aiohttp.ClientSession) -> None:
    uid = new_user()
    await say(client, uid, "转人工", "m1")
    body = {"message_id": "r1", "text": "再见", "agent": "Ann"}
    first = await ask_desk(client, uid, "/return", body)
    assert (await ask_desk(client, uid, "/return", body))[1] == first[1]
    await say(client, uid, "转人工", "m2")
    requests = [handoff for handoff, one in told(gateway, uid) if isinstance(one, HandoffRequested)]
    ends = [(handoff, one.reason) for handoff, one in told(gateway, uid) if isinstance(one, HandoffEnded)]
    assert len(set(requests)) == 2
    assert ends == [(requests[0], "returned")]
    assert (await ask_desk(client, uid, "/return", {"message_id": "r1"}))[1] == first[1]
    assert (await ask_desk(client, uid))[1]["scene"] == "handoff"


@pytest.mark.parametrize("path", ["", "/messages", "/return"])
@pytest.mark.parametrize("key", [None, "a-key-of-nobody", "another-key-of-agent"])
async def test_without_a_key_of_the_desk_nothing_is_said_or_shown(
    client: aiohttp.ClientSession, path: str, key: str | None
) -> None:
    uid = new_user()
    await say(client, uid, "转人工")
    status, problem, headers = await ask_desk(client, uid, path, {"message_id": "a1", "text": "hi"}, key)
    assert status == 401
    assert problem["code"] == ("credential_missing" if key is None else "credential_invalid")
    assert headers["www-authenticate"].startswith("Bearer")
    assert headers["content-type"] == "application/problem+json"
    assert (await ask_desk(client, uid, key="another-key-of-agents"))[1]["scene"] == "handoff"


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        pytest.param("/messages", b"{", 400, "malformed_request", id="no JSON"),
        pytest.param("/messages", {"text": "hi"}, 422, "invalid_message", id="no message_id"),
        pytest.param("/messages", {"message_id": "a", "text": " "}, 422, "invalid_message", id="no text"),
        pytest.param("/messages", {"message_id": "a b", "text": "hi"}, 422, "invalid_message", id="no id"),
        pytest.param("/messages", {"message_id": "a", "text": "x" * 501}, 413, "message_too_long", id="too long"),
        pytest.param("/messages", b" " * 70_000, 413, "body_too_large", id="too large"),
        pytest.param("/return", {"words": "x"}, 422, "invalid_message", id="unknown field"),
        pytest.param("/return", {"text": "x" * 501}, 413, "message_too_long", id="last words too long"),
    ],
)
async def test_what_a_desk_sends_is_checked(
    client: aiohttp.ClientSession, path: str, body: object, status: int, code: str
) -> None:
    uid = new_user()
    await say(client, uid, "转人工")
    found, problem, _ = await ask_desk(client, uid, path, body)
    assert (found, problem["code"]) == (status, code)


async def test_openai_s_clients_get_an_empty_answer_meanwhile_and_strangers_stay_with_the_bot(
    client: aiohttp.ClientSession,
) -> None:
    uid = new_user()

    async def complete(text: str, user: str | None, *, stream: bool = False) -> aiohttp.ClientResponse:
        body = {"model": "x", "messages": [{"role": "user", "content": text}], "stream": stream}
        response = await client.post("/v1/chat/completions", json=body | ({} if user is None else {"user": user}))
        assert response.status == 200
        return response

    first = await (await complete("转人工", uid)).json()
    assert first["chatflow"]["scene"] == "handoff"
    second = await (await complete("在吗", uid)).json()
    (choice,) = second["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("", "stop")
    streamed = await (await complete("在吗", uid, stream=True)).text()
    assert '"content":""' in streamed
    assert streamed.rstrip().endswith("data: [DONE]")
    # Without a user there is no conversation that a person could come to.
    alone = await (await complete("转人工", None)).json()
    assert alone["chatflow"]["scene"] != "handoff"
    assert alone["choices"][0]["message"]["content"]


async def test_a_flow_without_a_desk_has_no_such_routes_and_answers_by_itself() -> None:
    with running_gateway({**SHOP}) as running:
        async with aiohttp.ClientSession(running.base_url) as session:
            status, problem, _ = await ask_desk(session, "u")
            assert (status, problem["code"]) == (404, "route_unknown")
            assert (await say(session, "u", "转人工"))["scene"] == "answer"
        assert not told(running, "u")


Gate = Callable[[], Awaitable[None]]


class _Slow(MemoryStore):
    """The twin, in which every call lets others go first as often as it is told."""

    gate: Gate

    async def load(self, turn: Turn) -> Loaded:
        await self.gate()
        return await super().load(turn)

    async def commit(self, turn: Turn, conversation: Conversation, outcome: Outcome) -> Committed:
        await self.gate()
        return await super().commit(turn, conversation, outcome)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("user"), st.sampled_from(["转人工", "在吗", "talk to a human"]), st.integers(0, 6)),
        st.tuples(st.just("again"), st.integers(0, 5), st.integers(0, 6)),
        st.tuples(st.just("agent"), st.integers(0, 3), st.integers(0, 6)),
        st.tuples(st.just("return"), st.integers(0, 3), st.integers(0, 6)),
    ),
    min_size=2,
    max_size=14,
)


@settings(max_examples=200)
@given(STEPS, st.lists(st.integers(0, 4), min_size=1, max_size=12))
def test_however_requests_meet_handoffs_follow_each_other_and_every_word_is_told_once(
    steps: list[tuple[str, Any, int]], waits: list[int]
) -> None:
    gateway = Gateway(spec(), Timing())
    slow = replace_class(gateway.store, waits)
    handoffs = MemoryHandoffs(slow)
    sent: dict[int, str] = {}

    async def act(number: int, verb: str, value: Any, delay: int) -> None:
        for _ in range(delay):
            await asyncio.sleep(0)
        if verb == "user":
            sent[number] = value
            await gateway.runner.answer("u", f"m{number}", value)
        elif verb == "again" and value in sent:
            await gateway.runner.answer("u", f"m{value}", sent[value])
        elif verb in ("agent", "return"):
            notice = Notice("agent", "word", 1, f"a{value}", "Ann")
            await handoffs.speak(Word("u", f"{verb}{value}", "word", "Ann", notice, ends=verb == "return"))

    async def run() -> list[BaseException]:
        done = await asyncio.gather(*(act(number, *step) for number, step in enumerate(steps)), return_exceptions=True)
        return [one for one in done if isinstance(one, BaseException) and not isinstance(one, ChatFlowError)]

    assert asyncio.run(run()) == []
    history = told(gateway, "u")
    lasting: str | None = None
    passed: list[str] = []
    seen = set()
    for handoff, one in history:
        if isinstance(one, HandoffRequested):
            assert lasting is None, "a handoff within a handoff"
            assert handoff not in seen
            seen.add(handoff)
            lasting = handoff
            passed.append(one.message_id)
        elif isinstance(one, HandoffMessage):
            assert handoff == lasting
            passed.append(one.message.message_id)
        else:
            assert handoff == lasting
            lasting = None
    assert len(passed) == len(set(passed)), "a message was told twice"
    assert asyncio.run(handoffs.look("u")).handoff_id == lasting


def replace_class(store: MemoryStore, waits: list[int]) -> _Slow:
    """The gateway's own store, made slow in place: runner and desk hold it already."""
    store.__class__ = _Slow
    assert isinstance(store, _Slow)
    turns = itertools.cycle(waits)

    async def gate() -> None:
        for _ in range(next(turns)):
            await asyncio.sleep(0)

    store.gate = gate
    return store
