"""Personal data gives way to the name of its kind, and nothing else does."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest
from chatflow_runtime.domain.personal_data import CARD, EMAIL, IDENTITY, PHONE, without_personal_data
from hypothesis import given
from hypothesis import strategies as st

FULL_WIDTH = str.maketrans("0123456789@", "０１２３４５６７８９＠")


def luhn(digits: str) -> str:
    """The digits and the check digit that belongs to them."""
    total = sum(sum(divmod(int(digit) * (2 - place % 2), 10)) for place, digit in enumerate(reversed(digits)))
    return f"{digits}{-total % 10}"


def identity(first: str) -> str:
    """17 digits and the check character that makes the sum of digit times 2 ** place be 1 modulo 11."""
    total = sum(int(digit) * 2**place for place, digit in enumerate(reversed(first), 1))
    return first + "0123456789X"[(1 - total) % 11]


phones = st.builds("1{}{:09d}".format, st.integers(3, 9), st.integers(0, 10**9 - 1))
cards = st.builds(
    lambda first, rest: luhn(f"{first}{rest}"), st.integers(2, 6), st.text("0123456789", min_size=11, max_size=17)
)
identities = st.builds(
    lambda area, born, number: identity(f"{area:06d}{born:%Y%m%d}{number:03d}"),
    st.integers(110_000, 659_999),
    st.dates(),
    st.integers(0, 999),
).filter(lambda one: len(one) == 18)
emails = st.from_regex(r"[a-z0-9]{1,20}(\.[a-z0-9]{1,10})?@[a-z0-9]{1,20}\.(com|cn|org)", fullmatch=True)
words = st.text("我的电话是，订单 please call me.:", max_size=20).filter(lambda text: not text.endswith(("+", "(")))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("我的手机13800138000，请回电", f"我的手机{PHONE}，请回电"),
        ("打 138-0013-8000 或 +86 138 0013 8000", f"打 {PHONE} 或 {PHONE}"),
        ("call (415) 555-2671 or 415.555.2671", f"call {PHONE} or {PHONE}"),
        ("+44 20 7946 0958 please", f"{PHONE} please"),
        ("身份证11010519491231002X。", f"身份证{IDENTITY}。"),
        ("card 4111 1111 1111 1111, thanks", f"card {CARD}, thanks"),
        ("卡号" + luhn("622202123456789012"), f"卡号{CARD}"),
        ("write to ann.lee+shop@example.co.uk.", f"write to {EMAIL}."),
        ("一三八零零一三八零零零", "一三八零零一三八零零零"),
    ],
)
def test_what_people_write(text: str, wanted: str) -> None:
    assert without_personal_data(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "订单 QH20250001 到哪了",
        "order 2026112300012345 from 2026-11-23",
        "110105194912310021 has the wrong check digit",
        "4111 1111 1111 1112 too",
        "10:30-18:00, 3 x 12.50",
        "@ann please",
        "12345678901",
        "a1790000001000-0",
        "1790000001000-0",
    ],
)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert without_personal_data(text) == text


@given(
    st.one_of(
        phones.map(lambda one: (one, PHONE)),
        cards.map(lambda one: (one, CARD)),
        identities.map(lambda one: (one, IDENTITY)),
        emails.map(lambda one: (one, EMAIL)),
    ),
    words,
    words,
    st.booleans(),
)
def test_whatever_stands_around_it_it_is_found(found: tuple[str, str], before: str, after: str, is_wide: bool) -> None:
    value, kind = found
    if kind == EMAIL:
        before, after = f"{before} ", f" {after}"
    if before and before[-1].isascii() and before[-1].isalnum():
        before += " "
    if after and after[0].isascii() and after[0].isalnum():
        after = f" {after}"
    shown = value.translate(FULL_WIDTH) if is_wide else value
    masked = without_personal_data(f"{before}{shown}{after}")
    assert shown not in masked
    assert masked.count("[") == 1
    if kind in (EMAIL, PHONE):
        assert kind in masked


@given(st.text())
def test_a_text_that_was_cleared_stays_as_it_is(text: str) -> None:
    once = without_personal_data(text)
    assert without_personal_data(once) == once


def test_long_texts_take_linear_time() -> None:
    for text in ("1 " * 20_000, "1" * 40_000, "a@" * 20_000, "a." * 20_000 + "@", "+" * 40_000, "1-" * 20_000):
        began_s = time.process_time()
        without_personal_data(text)
        assert time.process_time() - began_s < 2


LOGGING = """
import logging, structlog
from chatflow_runtime.logs import configure
configure("json", "gateway")
structlog.get_logger().warning("turn_failed", uid="13800138000", after_s=1.5)
try:
    raise ValueError("no user ann@example.com")
except ValueError:
    logging.getLogger("a.library").exception("4111 1111 1111 1111 was refused")
"""


def test_logs_hold_none() -> None:
    ran = subprocess.run([sys.executable, "-c", LOGGING], capture_output=True, text=True, check=True)
    own, library = map(json.loads, ran.stderr.splitlines())
    assert (own["event"], own["uid"], own["after_s"]) == ("turn_failed", PHONE, 1.5)
    assert library["event"] == f"{CARD} was refused"
    assert library["exception"].endswith(f"ValueError: no user {EMAIL}")
