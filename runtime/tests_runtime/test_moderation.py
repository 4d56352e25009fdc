"""Word lists, as users and models meet them."""

from __future__ import annotations

import unicodedata
from itertools import pairwise

import pytest
from chatflow_api.v1alpha1 import ModerationAction
from chatflow_runtime.domain.folding import fold, fold_pieces, is_word_character
from chatflow_runtime.domain.moderation import Match, Moderator, parse_words
from chatflow_runtime.domain.normalisation import normalise
from chatflow_runtime.errors import WordListInvalid
from hypothesis import assume, given
from hypothesis import strategies as st

MASK = ModerationAction.MASK
REFUSAL = "我们换个话题吧。"

LETTERS = "aAbBｂ坏壞话話好ﬀ㏂é \n\u200b\u0301.1"
"""Few enough that matches are common; some fold to nothing, to several characters, or to each other."""
TEXTS = st.text(alphabet=LETTERS, max_size=24)
WORDS = st.lists(
    st.text(alphabet=LETTERS, min_size=1, max_size=5).filter(lambda word: fold(word).strip() != ""),
    min_size=1,
    max_size=5,
)


def _streamed(moderator: Moderator, deltas: list[str]) -> str:
    stream = moderator.stream()
    return "".join([*(stream.feed(delta) for delta in deltas), stream.finish()])


def _cut(text: str, cuts: list[int]) -> list[str]:
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[start:end] for start, end in pairwise(places)]


@pytest.mark.parametrize(
    ("word", "text", "masked"),
    [
        pytest.param("赌博", "我想去赌博网站", "我想去**网站", id="Chinese matches anywhere"),
        pytest.param("casino", "The CASINO, please", "The ******, please", id="case does not matter"),
        pytest.param("賭博", "去赌博", "去**", id="a traditional word finds a simplified one"),
        pytest.param("赌博", "去賭博", "去**", id="a simplified word finds a traditional one"),
        pytest.param("甚麼鬼", "什么鬼话", "***话", id="a word is simplified as texts are"),
        pytest.param("casino", "ｃａｓｉｎｏ", "******", id="full width is half width"),
        pytest.param("赌博", "赌\u200b博吗", "***吗", id="zero-width characters hide nothing"),
        pytest.param("café", "CAFE\u0301s cafe\u0301", "CAFE\u0301s ****\u0301", id="accents fold"),
        pytest.param("ass", "class assets", "class assets", id="English matches whole words alone"),
        pytest.param("ass", "kick-ass 'ass' ass2", "kick-*** '***' ass2", id="signs end words, digits do not"),
        pytest.param("vx", "加vx吧", "加**吧", id="Han characters end English words"),
        pytest.param("加vx", "请加vx1 请加vx", "请加vx1 请***", id="each end of a mixed word follows its own script"),
        pytest.param("wire transfer", "a wire \n transfer", "a ***************", id="any white space is a space"),
        pytest.param("110", "打110 1100", "打*** 1100", id="digits are words"),
        pytest.param("ff", "o ﬀ x", "o * x", id="a ligature is covered whole"),
        pytest.param("casino", "саsіnо СΑSΙΝΟ", "****** СΑSΙΝΟ", id="Cyrillic and Greek letters hide nothing"),
        pytest.param("мошенник", "МОШЕННИК, мошенник", "********, ********", id="words of other scripts are found"),
    ],
)
def test_a_listed_word_is_found_and_covered(word: str, text: str, masked: str) -> None:
    assert Moderator.build([word], action=MASK).check(text).text == masked


def test_a_match_tells_the_word_as_listed_and_its_place_in_the_text() -> None:
    text = "ok\u200b 去Ｃａｓｉｎｏ賭博"
    verdict = Moderator.build(["casino", "赌博"]).check(text)
    assert verdict.matches == (Match("casino", 5, 11), Match("赌博", 11, 13))
    assert [text[match.start : match.end] for match in verdict.matches] == ["Ｃａｓｉｎｏ", "賭博"]
    assert verdict.is_refused


def test_masking_refuses_nothing() -> None:
    verdict = Moderator.build(["赌博"], action=MASK).check("赌博")
    assert not verdict.is_refused
    assert verdict.text == "**"


def test_an_allowed_phrase_covers_the_words_inside_it_and_no_others() -> None:
    moderator = Moderator.build(["赌", "casino"], allow=["防赌宣传", "禁赌", "Casino Royale"], action=MASK)
    assert moderator.check("防赌宣传日，禁赌，别赌").text == "防赌宣传日，禁赌，别*"
    assert moderator.check("casino royale or casino").text == "casino royale or ******"
    assert moderator.check("casino royales").text == "****** royales"


def test_without_words_everything_passes_untouched() -> None:
    moderator = Moderator.build([], allow=["x"])
    text = "任何 text\u200b"
    assert moderator.check(text).text is text
    assert moderator.stream().feed(text) is text


def test_a_split_word_never_gets_out() -> None:
    stream = Moderator.build(["赌博网站"], action=MASK).stream()
    assert [stream.feed(delta) for delta in ("去赌", "博", "网", "站吧", "，赌", "气")] == [
        "去",
        "",
        "",
        "****吧",
        "，",
        "赌气",
    ]
    assert stream.finish() == ""


def test_only_an_end_that_may_begin_a_word_is_held_back() -> None:
    stream = Moderator.build(["bad example of a word"], allow=["x" * 100], action=MASK).stream()
    assert stream.feed("Some text about crab") == "Some text about crab"
    assert stream.feed(" soup is a bad") == " soup is a "
    assert stream.feed("ge") == "badge"


def test_a_word_at_the_end_waits_for_what_follows_it() -> None:
    moderator = Moderator.build(["ass"], action=MASK)
    assert _streamed(moderator, ["an ass", "et"]) == "an asset"
    assert _streamed(moderator, ["an ass", " !"]) == "an *** !"
    assert _streamed(moderator, ["an ass"]) == "an ***"


@pytest.mark.parametrize(
    ("words", "deltas"),
    [
        pytest.param(["wire transfer"], ["wire ", " \n", " transfer!"], id="spaces are squeezed across deltas"),
        pytest.param(["bba.", "m.1"], ["abbb㏂", "2"], id="a word that does not begin where old text was dropped"),
        pytest.param(["ab", "bcd"], ["xx ab", "cd ", "ab "], id="overlapping words"),
        pytest.param(["坏话"], ["x" * 50 + "坏", "\u200b", "话"], id="invisible characters between deltas"),
    ],
)
def test_deltas_and_the_whole_agree(words: list[str], deltas: list[str]) -> None:
    moderator = Moderator.build(words, action=MASK)
    assert _streamed(moderator, deltas) == moderator.check("".join(deltas)).text


def test_a_rejected_answer_ends_before_the_word_with_the_refusal() -> None:
    moderator = Moderator.build(["赌博"], refusal=REFUSAL)
    stream = moderator.stream()
    assert stream.feed("可以去赌") == "可以去"
    assert not stream.is_refused
    assert stream.feed("博") == f"\n\n{REFUSAL}"
    assert stream.feed("，还有别的") == ""
    assert stream.finish() == ""
    assert [moderator.stream().is_refused, stream.is_refused] == [False, True]
    assert _streamed(moderator, ["赌", "博"]) == REFUSAL


@given(words=WORDS, allow=st.lists(WORDS, max_size=1), text=TEXTS, cuts=st.lists(st.integers(0, 24), max_size=8))
def test_cutting_a_text_into_deltas_changes_nothing(
    words: list[str], allow: list[list[str]], text: str, cuts: list[int]
) -> None:
    moderator = Moderator.build(words, allow=[phrase for phrases in allow for phrase in phrases], action=MASK)
    assert _streamed(moderator, _cut(text, cuts)) == moderator.check(text).text


@given(words=WORDS, text=TEXTS, cuts=st.lists(st.integers(0, 24), max_size=8))
def test_cutting_a_rejected_text_into_deltas_changes_nothing(words: list[str], text: str, cuts: list[int]) -> None:
    moderator = Moderator.build(words, refusal=REFUSAL)
    whole = _streamed(moderator, [text])
    assert _streamed(moderator, _cut(text, cuts)) == whole
    matches = moderator.check(text).matches
    assert whole.endswith(REFUSAL) if matches else whole == text
    if matches:
        first = text[: matches[0].start]
        assert whole == (f"{first}\n\n{REFUSAL}" if first else REFUSAL)


@given(words=WORDS, text=TEXTS)
def test_a_masked_text_holds_no_listed_word(words: list[str], text: str) -> None:
    moderator = Moderator.build(words, action=MASK)
    masked = moderator.check(text).text
    assert moderator.check(masked).matches == ()
    assert len(masked) == len(text)


@given(words=WORDS, text=TEXTS)
def test_matches_are_those_of_a_search_word_by_word(words: list[str], text: str) -> None:
    folded, offsets = fold_pieces(text)
    expected = set()
    for pattern in {fold(variant).strip() for word in words for variant in (word, normalise(word))}:
        for start in range(len(folded) - len(pattern) + 1):
            end = start + len(pattern)
            if folded[start:end] == pattern and not _cuts(folded, start) and not _cuts(folded, end):
                expected.add((offsets[start], offsets[end - 1] + 1))
    verdict = Moderator.build(words).check(text)
    assert {(match.start, match.end) for match in verdict.matches} == expected
    covered = {place for start, end in expected for place in range(start, end)}
    assert verdict.text == "".join("*" if place in covered else one for place, one in enumerate(text))
    assert verdict.is_refused == bool(expected)


def _cuts(folded: str, place: int) -> bool:
    return 0 < place < len(folded) and is_word_character(folded[place - 1]) and is_word_character(folded[place])


@given(st.text(alphabet=st.characters() | st.sampled_from(LETTERS)))
def test_folding_in_pieces_and_in_one_go_agree_and_every_offset_leads_back(text: str) -> None:
    folded, offsets = fold_pieces(text)
    assert folded == fold(text)
    assert offsets == sorted(offsets)
    assert len(offsets) == len(folded)
    for becomes, offset in zip(folded, offsets, strict=True):
        assert becomes in fold_pieces(text[offset])[0]


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_what_unicode_holds_equal_folds_to_the_same(text: str) -> None:
    assume("  " not in text)
    assert fold(unicodedata.normalize("NFKC", text)) == fold(text)


def test_a_word_list_may_hold_comments_and_blank_lines() -> None:
    text = "\ufeff# 第一批\n赌博\r\n\n  wire transfer  # 常见\n#内部\nC#\n"
    assert parse_words(text, "words/basic") == ("赌博", "wire transfer", "C#")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        pytest.param("x" * 201, "words/basic, line 2: 'xxxxxxxxxxxxxxxxxxxx'... has 201 characters", id="too long"),
        pytest.param("\u200b", "words/basic, line 2: '\\u200b' holds nothing to look for", id="invisible"),
        pytest.param("***", "words/basic, line 2: '***' holds nothing to look for", id="stars"),
        pytest.param("a\x00b", "words/basic, line 2: 'a\\x00b' holds a control character", id="binary"),
    ],
)
def test_a_line_that_is_no_word_is_refused_with_its_place(line: str, message: str) -> None:
    with pytest.raises(WordListInvalid) as raised:
        parse_words(f"赌博\n{line}\n", "words/basic")
    assert str(raised.value).startswith(message)
