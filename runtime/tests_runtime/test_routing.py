"""Routing: one decision a turn, from text, scene, memory and classification."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from chatflow_api.runtime_config import RuntimeConfig, derive
from chatflow_api.v1alpha1 import ChatFlow
from chatflow_runtime.domain.conversation import TRANSITIONS, Event, Memory, Scene, next_scene
from chatflow_runtime.domain.routing import (
    MAX_ASKED,
    Act,
    Answer,
    AskRating,
    Cancel,
    Collect,
    Greet,
    Intent,
    Rate,
    Route,
    Rules,
    route,
)
from hypothesis import given
from hypothesis import strategies as st

FLOW = {
    "apiVersion": "chatflow.dev/v1alpha1",
    "kind": "ChatFlow",
    "metadata": {"name": "shop"},
    "spec": {
        "dialogue": {
            "slots": [
                {"name": "order", "ask": "订单号是多少？", "pattern": "([A-Z]{2}[0-9]{8})"},
                {"name": "phone", "ask": "手机尾号？", "pattern": "[0-9]{4}"},
            ],
            "actions": [
                {
                    "name": "status",
                    "intent": "order_status",
                    "slots": ["order"],
                    "http": {"url": "http://orders/{order}"},
                    "reply": "{response.state}",
                },
                {
                    "name": "cancel",
                    "intent": "cancel_order",
                    "slots": ["order", "phone"],
                    "http": {"url": "http://orders/{order}", "method": "DELETE"},
                    "reply": "ok",
                },
            ],
        }
    },
}
CONFIG: RuntimeConfig = derive(ChatFlow.model_validate(FLOW))
RULES = Rules.of(CONFIG)
STATUS, CANCEL = RULES.actions_by_name["status"], RULES.actions_by_name["cancel"]
ORDER, PHONE = RULES.slots["order"], RULES.slots["phone"]
NONE = Intent(None, 0.0, is_in_scope=False)
COLLECTING = Memory(action="status", pending="order", asked=1)


def sure(name: str) -> Intent:
    return Intent(name, 0.95, is_in_scope=True)


def unsure(name: str) -> Intent:
    return Intent(name, 0.6, is_in_scope=True)


@pytest.mark.parametrize(
    ("text", "scene", "memory", "intent", "expected"),
    [
        pytest.param("你好", Scene.GREETING, Memory(), sure("refund"), Greet(), id="a greeting is greeted"),
        pytest.param(
            "退款多久到",
            Scene.GREETING,
            Memory(),
            sure("refund"),
            Answer(is_known=True),
            id="sure: knowledge",
        ),
        pytest.param(
            "退款多久到", Scene.ANSWER, Memory(), unsure("refund"), Answer(is_known=False), id="unsure: model"
        ),
        pytest.param(
            "天气如何",
            Scene.ANSWER,
            Memory(),
            Intent("refund", 0.95, is_in_scope=False),
            Answer(is_known=False),
            id="out of scope: model",
        ),
        pytest.param(
            "退款多久到", Scene.ANSWER, Memory(), NONE, Answer(is_known=True), id="unclassified: retrieval alone"
        ),
        pytest.param(
            "查订单", Scene.ANSWER, Memory(), sure("order_status"), Collect(STATUS, ORDER, {}), id="asks for a slot"
        ),
        pytest.param(
            "查订单QH20250001",
            Scene.ANSWER,
            Memory(),
            sure("order_status"),
            Act(STATUS, {"order": "QH20250001"}),
            id="takes a slot from the question",
        ),
        pytest.param(
            "还有多久到",
            Scene.ANSWER,
            Memory(slots={"order": "QH20250001"}),
            sure("order_status"),
            Act(STATUS, {"order": "QH20250001"}),
            id="remembers a slot",
        ),
        pytest.param(
            "是 QH20250001",
            Scene.COLLECT,
            COLLECTING,
            unsure("refund"),
            Act(STATUS, {"order": "QH20250001"}),
            id="a pending slot takes the text",
        ),
        pytest.param(
            "QH20250001",
            Scene.COLLECT,
            Memory(action="cancel", pending="order", asked=1),
            NONE,
            Collect(CANCEL, PHONE, {"order": "QH20250001"}),
            id="goes on to the next slot",
        ),
        pytest.param(
            "不知道",
            Scene.COLLECT,
            COLLECTING,
            unsure("refund"),
            Collect(STATUS, ORDER, {}, is_repeated=True),
            id="asks again",
        ),
        pytest.param(
            "不知道",
            Scene.COLLECT,
            Memory(action="status", pending="order", asked=MAX_ASKED),
            unsure("refund"),
            Cancel(),
            id="gives up in the end",
        ),
        pytest.param("算了", Scene.COLLECT, COLLECTING, NONE, Cancel(), id="cancels"),
        pytest.param(
            "退款多久到",
            Scene.COLLECT,
            COLLECTING,
            sure("refund"),
            Answer(is_known=True, resume=Collect(STATUS, ORDER, {}, is_repeated=True)),
            id="answers a question in between",
        ),
        pytest.param("谢谢，解决了", Scene.ANSWER, Memory(), NONE, AskRating(), id="satisfied: asks for a rating"),
        pytest.param("5", Scene.EVALUATE, Memory(), NONE, Rate(5), id="a rating"),
        pytest.param("9", Scene.EVALUATE, Memory(), NONE, Answer(is_known=True), id="no rating of that scale"),
    ],
)
def test_a_turn_goes_where_it_belongs(text: str, scene: Scene, memory: Memory, intent: Intent, expected: Route) -> None:
    assert route(text, scene, memory, intent, RULES) == expected


@given(
    st.text(max_size=40),
    st.sampled_from(Scene),
    st.builds(
        Memory,
        slots=st.dictionaries(st.sampled_from(["order", "phone"]), st.just("QH20250001")),
        action=st.sampled_from([None, "status", "cancel", "gone"]),
        asked=st.integers(0, 9),
    ),
    st.builds(
        Intent,
        st.sampled_from([None, "refund", "order_status", "cancel_order"]),
        st.floats(0, 1),
        is_in_scope=st.booleans(),
    ),
)
def test_an_action_is_called_only_with_every_slot(text: str, scene: Scene, memory: Memory, intent: Intent) -> None:
    decided = route(text, scene, memory, intent, RULES)
    if isinstance(decided, Act):
        assert set(decided.action.slots) <= set(decided.slots)
    if isinstance(decided, Collect):
        assert decided.slot.name not in decided.slots


@pytest.mark.parametrize(("text", "value"), [("订单 20250001", "20250001"), ("QH20250001", "QH20250001")])
def test_alternatives_of_a_slot_may_do_without_a_group(text: str, value: str) -> None:
    patterns = {**RULES.patterns, "order": re.compile("订单 ?([0-9]{8})|QH[0-9]{8}")}
    found = route(text, Scene.COLLECT, COLLECTING, NONE, replace(RULES, patterns=patterns))
    assert found == Act(STATUS, {"order": value})


def test_every_scene_but_the_last_ends_by_timeout() -> None:
    for scene in TRANSITIONS:
        assert next_scene(scene, Event.TIMED_OUT) is Scene.END
