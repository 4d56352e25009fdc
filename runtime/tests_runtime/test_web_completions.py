"""`/v1/chat/completions` of a served gateway, through OpenAI's own client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam
from tests_runtime.web_clients import new_user
from tests_runtime.web_gateway import ANSWER, REFUND, Gateway, running_gateway

ANSWER_TEXT = "".join(line for line in ANSWER if isinstance(line, str))


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with running_gateway() as running:
        yield running


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{gateway.base_url}/v1", api_key="none", max_retries=0) as opened:
        yield opened


def user(text: str) -> ChatCompletionMessageParam:
    return {"role": "user", "content": text}


def extra(answer: Any) -> Any:
    """The gateway's own part of an answer or chunk."""
    return answer.model_extra["chatflow"]


def test_a_completion_has_the_answer_its_usage_and_the_sources(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="any", messages=[user("退款多久到账")], user=new_user())
    assert answer.choices[0].message.content == REFUND.text
    assert (answer.choices[0].finish_reason, answer.model) == ("stop", "shop")
    assert answer.usage is not None
    assert answer.usage.total_tokens == 0
    assert extra(answer)["citations"][0]["url"] == REFUND.url
    generated = client.chat.completions.create(model="any", messages=[user("你们的吉祥物叫什么")], user=new_user())
    assert generated.usage is not None
    assert (generated.usage.prompt_tokens, generated.usage.completion_tokens) == (20, 8)


@pytest.mark.parametrize("include_usage", [True, False])
def test_a_stream_joins_to_the_answer_and_ends_with_the_sources(client: OpenAI, include_usage: bool) -> None:
    chunks = list(
        client.chat.completions.create(
            model="any",
            messages=[user("你们的吉祥物叫什么")],
            user=new_user(),
            stream=True,
            stream_options={"include_usage": include_usage},
        )
    )
    with_choice = [chunk for chunk in chunks if chunk.choices]
    assert with_choice[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in with_choice) == ANSWER_TEXT
    assert len(with_choice) == 4
    assert with_choice[-1].choices[0].finish_reason == "stop"
    assert extra(with_choice[-1])["rung"] == "L1"
    assert [chunk.usage.total_tokens for chunk in chunks if chunk.usage] == ([28] if include_usage else [])


def test_an_answer_that_was_not_streamed_comes_as_one_chunk(client: OpenAI) -> None:
    stream = client.chat.completions.create(model="any", messages=[user("退款多久到账")], stream=True)
    contents = [chunk.choices[0].delta.content for chunk in stream]
    assert contents == [REFUND.text, None]


def test_a_named_user_has_a_conversation_with_slots_and_history(client: OpenAI) -> None:
    uid = new_user()

    def say(text: str) -> Any:
        return extra(client.chat.completions.create(model="any", messages=[user(text)], user=uid))

    assert say("帮我查订单")["slot"] == "order"
    assert say("QH20250001")["origin"] == "action"


def test_an_anonymous_request_brings_its_history_along(client: OpenAI, gateway: Gateway) -> None:
    messages: list[ChatCompletionMessageParam] = [
        {"role": "system", "content": "You are a pirate."},
        user("我买的耳机坏了"),
        {"role": "assistant", "content": "请问是哪一款？"},
        {"role": "user", "content": [{"type": "text", "text": "白色的"}]},
    ]
    answer = client.chat.completions.create(model="any", messages=messages)
    assert answer.choices[0].message.content == ANSWER_TEXT
    contents = [message.content for message in gateway.shop.prompts[-1]]
    assert contents[-3:] == ["我买的耳机坏了", "请问是哪一款？", "白色的"]
    assert not any("pirate" in content for content in contents)


def test_a_request_repeated_under_its_key_takes_effect_once(client: OpenAI, gateway: Gateway) -> None:
    uid = new_user()
    answers = [
        client.chat.completions.create(
            model="any", messages=[user("你好")], user=uid, extra_headers={"idempotency-key": "k1"}
        )
        for _ in range(2)
    ]
    assert extra(answers[0]) == extra(answers[1])
    assert len(gateway.run(gateway.store.history(uid))) == 2


def test_so_does_one_without_a_user(client: OpenAI) -> None:
    asked = [("你好", "anon-1"), ("你好", "anon-1"), ("您好", "anon-1"), ("你好", "anon-2")]
    answers = [
        client.chat.completions.create(model="any", messages=[user(text)], extra_headers={"idempotency-key": key})
        for text, key in asked
    ]
    ids = [extra(answer)["id"] for answer in answers]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3


@pytest.mark.parametrize(
    ("messages", "options", "kind"),
    [
        pytest.param(
            [{"role": "assistant", "content": "x"}], {}, openai.UnprocessableEntityError, id="nothing to answer"
        ),
        pytest.param([], {}, openai.UnprocessableEntityError, id="no messages"),
        pytest.param([user("x")], {"n": 2}, openai.UnprocessableEntityError, id="two answers"),
        pytest.param([user(" ")], {"stream": True}, openai.UnprocessableEntityError, id="an empty text, streamed"),
        pytest.param([user("x")], {"user": "a b"}, openai.UnprocessableEntityError, id="a user with white space"),
        pytest.param([user("x" * 501)], {}, openai.APIStatusError, id="too long"),
    ],
)
def test_errors_become_the_clients_own_exceptions(
    client: OpenAI, messages: Any, options: dict[str, Any], kind: type[openai.APIStatusError]
) -> None:
    with pytest.raises(kind) as raised:
        client.chat.completions.create(model="any", messages=messages, **options)
    error: Any = raised.value
    assert error.body["type"] == "invalid_request_error"
    assert error.code in ("invalid_message", "message_too_long")
    assert error.request_id


def test_the_flow_is_listed_as_the_one_model(client: OpenAI) -> None:
    assert [(model.id, model.owned_by) for model in client.models.list()] == [("shop", "chatflow")]


async def test_the_asynchronous_client_works_too(gateway: Gateway) -> None:
    async with openai.AsyncOpenAI(base_url=f"{gateway.base_url}/v1", api_key="none") as client:
        stream = await client.chat.completions.create(
            model="any", messages=[user("你们的吉祥物叫什么")], user=new_user(), stream=True
        )
        text = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(text) == ANSWER_TEXT
