"""What the bot says, and the short texts that it understands without a model."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
from chatflow_api.runtime_config import RuntimeConfig, derive
from chatflow_api.v1alpha1 import ChatFlow, Locale
from chatflow_runtime.domain.normalisation import normalise
from chatflow_runtime.domain.phrases import MAX_PHRASE_LENGTH, Phrase, parse_rating, phrase_of
from chatflow_runtime.domain.texts import texts_for
from hypothesis import given
from hypothesis import strategies as st


def _config(locale: Locale, **dialogue: Any) -> RuntimeConfig:
    flow = {
        "apiVersion": "chatflow.dev/v1alpha1",
        "kind": "ChatFlow",
        "metadata": {"name": "shop"},
        "spec": {"locale": locale, "dialogue": dialogue},
    }
    return derive(ChatFlow.model_validate(flow))


@pytest.mark.parametrize("locale", Locale)
def test_every_text_is_there_in_the_flows_language(locale: Locale) -> None:
    texts = dataclasses.asdict(texts_for(_config(locale)))
    is_chinese = {name: bool(re.search("[\u4e00-\u9fff]", text)) for name, text in texts.items()}
    assert set(is_chinese.values()) == {locale is Locale.ZH_CN}
    assert {name: re.findall(r"\{\w*\}", text) for name, text in texts.items() if "{" in text} == {
        "closing": ["{seconds}"]
    }


def test_the_manifests_texts_take_the_place_of_built_in_ones() -> None:
    own = {"greeting": "a", "busy": "b", "refusal": "c", "closing": "d {seconds}", "ended": "e", "rating": {"ask": "f"}}
    texts = texts_for(_config(Locale.EN, **own))
    assert (texts.greeting, texts.busy, texts.refusal, texts.closing, texts.ended, texts.rating_ask) == (
        "a",
        "b",
        "c",
        "d {seconds}",
        "e",
        "f",
    )
    assert texts.cancelled == texts_for(_config(Locale.EN)).cancelled


def test_the_rating_is_asked_on_the_flows_scale() -> None:
    assert "10 分" in texts_for(_config(Locale.ZH_CN, rating={"scale": 10})).rating_ask
    assert "to 3 (" in texts_for(_config(Locale.EN, rating={"scale": 3})).rating_ask


def test_a_notice_tells_the_seconds_left() -> None:
    texts = texts_for(_config(Locale.ZH_CN, closing="还有 {seconds} 秒", ended="再见"))
    assert texts.notice("closing", 29.2) == "还有 30 秒"
    assert texts.notice("closing", -1) == "还有 0 秒"
    assert texts.notice("ended", 0) == "再见"


@pytest.mark.parametrize(
    ("phrase", "texts"),
    [
        pytest.param(
            Phrase.GREETING,
            [
                "你好",
                "您好！",
                "哈喽～",
                "在吗？",
                "早上好",
                "客服在吗",
                "Hi",
                "hello!",
                "Good morning.",
                "hey there",
                "HELLO 👋",
            ],
            id="greeting",
        ),
        pytest.param(
            Phrase.SATISFIED,
            [
                "谢谢",
                "好的，明白了",
                "解决了，谢谢！",
                "謝謝",
                "明白了",
                "没有问题了",
                "OK，谢谢",
                "好的谢谢😊",
                "是的",
            ],
            id="satisfied, Chinese",
        ),
        pytest.param(
            Phrase.SATISFIED,
            [
                "Thanks!",
                "thanks, that helped",
                "That’s all, thank you.",
                "OK. Great, thanks!",
                "yes",
                "Got it, thanks",
                "It works now",
                "THX",
            ],
            id="satisfied, English",
        ),
        pytest.param(
            Phrase.CANCEL,
            [
                "算了",
                "取消",
                "不用了",
                "算了，不用了。",
                "算了，谢谢",
                "还是算了吧",
                "cancel",
                "Never mind.",
                "nvm",
                "Forget it",
                "don't bother",
            ],
            id="cancel",
        ),
        pytest.param(
            None,
            [
                "谢谢，那运费呢",
                "你好，谢谢",
                "你好，我要退款",
                "取消订单",
                "怎么取消",
                "cancel my subscription",
                "thanks but it still fails",
                "hello world",
                "好的我的订单呢",
                "没解决",
                "not solved",
                "不是",
                "",
                "！",
                "谢谢" * 30,
            ],
            id="none of them",
        ),
    ],
)
def test_a_phrase_is_recognised_as_a_whole(phrase: Phrase | None, texts: list[str]) -> None:
    assert {text: phrase_of(normalise(text)) for text in texts} == dict.fromkeys(texts, phrase)


@pytest.mark.parametrize(
    ("rating", "texts"),
    [
        pytest.param(
            5,
            ["5", "5分", "５ 分", "五星", "五星好评", "给你打5分", "满分", "⭐⭐⭐⭐⭐", "★★★★★", "5 stars!", "five"],
            id="5",
        ),
        pytest.param(
            4,
            ["4", "4 stars", "⭐⭐⭐⭐", "★★★★☆", "四颗星", "我打 4 分吧", "4/5", "4 out of 5", "I'd give it a 4."],
            id="4",
        ),
        pytest.param(2, ["两星", "2分", "two stars please", "⭐️⭐️"], id="2"),
        pytest.param(1, ["1", "一分", "一星", "one star", "★"], id="1"),
        pytest.param(
            None,
            [
                "0",
                "6",
                "10分",
                "-1",
                "4.5",
                "5分钟",
                "5个包裹",
                "十分满意",
                "订单 5",
                "👍",
                "",
                "好",
                "room 5",
                "3 days",
                "1 2 3",
            ],
            id="no rating",
        ),
    ],
)
def test_a_rating_is_read(rating: int | None, texts: list[str]) -> None:
    assert {text: parse_rating(normalise(text), 5) for text in texts} == dict.fromkeys(texts, rating)


def test_a_rating_lies_on_the_scale() -> None:
    assert [parse_rating("10 分", scale) for scale in (5, 10)] == [None, 10]
    assert [parse_rating("满分", scale) for scale in (3, 10)] == [3, 10]
    assert parse_rating("8/10", 10) == 8


@given(text=st.text(max_size=2 * MAX_PHRASE_LENGTH), scale=st.integers(2, 10))
def test_any_text_is_survived(text: str, scale: int) -> None:
    rating = parse_rating(text, scale)
    assert rating is None or 1 <= rating <= scale
    assert phrase_of(text) in {None, *Phrase}
