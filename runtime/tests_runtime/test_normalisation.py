"""Normalised texts: one spelling for what looks the same."""

from __future__ import annotations

import unicodedata

import pytest
from chatflow_runtime.domain.normalisation import is_invisible, normalise
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("Where is my order A-17?", "Where is my order A-17?", id="plain English stays, case included"),
        pytest.param("  two\t\twords \r\n", "two words", id="white space is squeezed"),
        pytest.param("a\x00b\x7fc", "abc", id="control characters go"),
        pytest.param("订单号是１２３，谢谢！", "订单号是123,谢谢!", id="full width becomes half width"),
        pytest.param("退\u200b款\ufeff\u2060", "退款", id="zero-width characters go"),
        pytest.param("葛\U000e0100布 ❤\ufe0f", "葛布 ❤", id="variation selectors go"),
        pytest.param("cafe\u0301", "café", id="an accent is composed"),
        pytest.param("cafe\u200d\u0301", "café", id="an accent is composed across what is invisible"),
        pytest.param("\u3000我要　退貨\u00a0", "我要 退货", id="ideographic and no-break spaces are spaces"),
        pytest.param("我買的鞋子什麼時候發貨", "我买的鞋子什么时候发货", id="traditional becomes simplified"),
        pytest.param("餘額、帳號", "余额、账号", id="words become the mainland's"),
        pytest.param("乾淨的後台，乾隆皇后", "干净的后台,乾隆皇后", id="a character follows its word"),
        pytest.param("-{zh:甲;en:乙}-見", "-{zh:甲;en:乙}-见", id="wiki markup is text"),
        pytest.param("bad\ud800text", "badtext", id="lone surrogates go"),
        pytest.param("\u200b\u2060 \u3164", "", id="nothing visible is nothing"),
    ],
)
def test_a_text_is_normalised(text: str, expected: str) -> None:
    assert normalise(text) == expected


@given(st.text())
def test_what_comes_out_is_visible_composed_and_squeezed(text: str) -> None:
    normalised = normalise(text)
    assert unicodedata.is_normalized("NFKC", normalised)
    assert not any(is_invisible(character) for character in normalised)
    assert normalised.split(" ") == normalised.split() or normalised == ""


@given(st.text())
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@given(st.text(alphabet=st.characters(min_codepoint=0, max_codepoint=127)))
def test_ascii_takes_the_short_way_to_the_same_result(text: str) -> None:
    marked = normalise(f"{text}\u3002")
    assert marked.removesuffix("\u3002").rstrip(" ") == normalise(text)
