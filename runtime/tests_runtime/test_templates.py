"""Replies made of what business APIs answer."""

from __future__ import annotations

import pytest
from chatflow_runtime.domain.templates import fill
from chatflow_runtime.errors import ActionFailed
from hypothesis import given
from hypothesis import strategies as st

ORDER = {
    "status": "已发货",
    "paid": True,
    "note": None,
    "total": 5,
    "items": [{"name": "鞋"}, {"name": "袜子"}],
    "tags": [],
    "address": {"city": "杭州"},
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        pytest.param("订单 {order_no}：{response.status}", "订单 A1：已发货", id="slot and field"),
        pytest.param("寄往{response.address.city}", "寄往杭州", id="nested"),
        pytest.param("{response.items.0.name}等", "鞋等", id="index"),
        pytest.param("商品：{response.items.name}", "商品：鞋、袜子", id="Chinese list"),
        pytest.param("Items: {response.items.name}", "Items: 鞋, 袜子", id="English list"),
        pytest.param("已付款：{response.paid}", "已付款：是", id="Chinese truth"),
        pytest.param("Paid: {response.paid}", "Paid: yes", id="English truth"),
        pytest.param("标签：{response.tags}", "标签：无", id="empty list"),
        pytest.param("{response.total}", "5", id="number"),
        pytest.param(
            "{} {0} {a b} {order_no!r} {order_no:>9} {{", "{} {0} {a b} {order_no!r} {order_no:>9} {{", id="braces"
        ),
    ],
)
def test_a_reply_is_filled(template: str, text: str) -> None:
    assert fill(template, {"order_no": "A1"}, ORDER) == text


@pytest.mark.parametrize(
    ("template", "message"),
    [
        pytest.param(
            "{response.eta}", r"{response.eta}, but the API's answer has no 'eta' there \(it has: address", id="field"
        ),
        pytest.param("{response.items.7.name}", "has no '7' there", id="index"),
        pytest.param("{response.status.x}", r"has no 'x' there \(it has: str\)", id="field of a text"),
        pytest.param("{response.status.__class__}", "has no '__class__' there", id="attribute"),
        pytest.param("{response.note}", "the API's answer is null", id="null"),
        pytest.param("{response.address}", "the API's answer is an object", id="object"),
        pytest.param("{phone}", "uses {phone}, but the slots are order_no", id="slot"),
        pytest.param("{order_no.x}", "uses {order_no.x}", id="field of a slot"),
    ],
)
def test_what_is_missing_fails_the_reply(template: str, message: str) -> None:
    with pytest.raises(ActionFailed, match=message):
        fill(template, {"order_no": "A1"}, ORDER)


@given(value=st.text())
def test_a_value_is_never_looked_at_again(value: str) -> None:
    assert fill("<{a}|{response.b}>", {"a": value}, {"b": "{a}" + value}) == f"<{value}|{{a}}{value}>"
