"""Normalisation and n-grams."""

from __future__ import annotations

import numpy as np
import pytest
from chatflow_models.intent.features import Featuriser
from chatflow_models.intent.text import grams, normalise, spelling, tokens
from hypothesis import given
from hypothesis import strategies as st

ANY_TEXT = st.text(st.characters(), max_size=60)
"""Lone surrogates included: JSON may carry them."""


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        pytest.param("  Where\tIS\n my  order ", "where is my order", id="white space and case"),
        pytest.param("ｏｒｄｅｒ　１２", "order 12", id="full width"),
        pytest.param("退\u200b款\ufeff", "退款", id="zero width"),
        pytest.param("訂單", "訂單", id="traditional characters stay"),
        pytest.param("\ud800ok", "ok", id="lone surrogate"),
    ],
)
def test_normalise_folds_what_means_the_same(text: str, wanted: str) -> None:
    assert normalise(text) == wanted


@given(ANY_TEXT)
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once


def test_scripts_are_told_apart_inside_one_text() -> None:
    assert tokens("我的iphone订单") == ["我的", "iphone", "订单"]
    found = grams("我的iphone订单")
    assert {"我", "我的", "订单", "iphone"} <= set(found.words)
    assert found.spelt == ["iphone"]
    assert set(found.pieces) == {"我的", "订单"}


def test_order_numbers_all_look_alike() -> None:
    assert grams("where is order 10021") == grams("where is order 99887766")


def test_a_word_is_spelt_with_its_borders() -> None:
    assert spelling("ab") == [" a", "ab", "b ", " ab", "ab ", " ab "]


@given(st.lists(ANY_TEXT, min_size=1, max_size=6))
def test_a_batch_of_texts_has_the_features_of_each_alone(texts: list[str]) -> None:
    featuriser = Featuriser.fit([normalise(text) for text in [*texts, "我的订单 where is my order"]], 1)
    cleaned = [normalise(text) for text in texts]
    together = featuriser.batch(cleaned)
    ends = [*together.starts[1:].tolist(), len(together.ids)]
    for row, text in enumerate(cleaned):
        alone = featuriser.batch([text])
        start, end = int(together.starts[2 * row]), ends[2 * row + 1]
        assert together.ids[start:end].tolist() == alone.ids.tolist()
        assert together.unknown[2 * row : 2 * row + 2].tolist() == alone.unknown.tolist()


@given(ANY_TEXT)
def test_every_gram_of_a_fitted_text_is_known_and_none_counts_twice(text: str) -> None:
    featuriser = Featuriser.fit([normalise(text)], 1)
    batch = featuriser.batch([normalise(text)])
    assert not batch.unknown.any()
    known = batch.ids[batch.ids != featuriser.padding]
    assert len(np.unique(known)) == len(known) == len(featuriser.idf)
