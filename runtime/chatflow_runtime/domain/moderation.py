"""Words that must not pass: in a user's text, checked whole, and in a model's answer, checked as it streams.

`bootstrap` builds one Moderator from the flow's word lists, `turn` checks messages, `answerers.models` streams answers
through it. Texts are compared folded (see `folding`); letters kept apart by spaces or signs are not joined.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Self

import msgspec
from ahocorasick_rs import AhoCorasick
from chatflow_api.v1alpha1 import ModerationAction

from chatflow_runtime.domain.folding import fold, fold_pieces, is_word_character
from chatflow_runtime.domain.normalisation import is_invisible, normalise
from chatflow_runtime.errors import WordListInvalid

MAX_WORD_LENGTH = 200
"""Characters of one listed word or phrase; a longer line is a sign of a file that is no word list."""

Span = tuple[int, int, int]
"""Start and end of a match, and the index of its pattern."""


class Match(msgspec.Struct, frozen=True):
    """A listed word found in a text, from `start` to `end` (exclusive), in characters of the text as it was given."""

    word: str
    start: int
    end: int


class Verdict(msgspec.Struct, frozen=True):
    """What moderation says. `text` has every listed word replaced by `*`, whether or not the text is refused."""

    is_refused: bool
    text: str
    matches: tuple[Match, ...] = ()


def parse_words(text: str, source: str) -> tuple[str, ...]:
    """The words of a list: one a line; `#` at the start of a line or after a space begins a comment.

    `source` names the list in errors. Raises WordListInvalid.
    """
    words = []
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), start=1):
        word = "" if line.startswith("#") else line.partition(" #")[0].strip()
        if word:
            words.append(_checked(word, f"{source}, line {number}"))
    return tuple(words)


class Moderator:
    """Checks texts against one flow's words."""

    def __init__(self, patterns: _Patterns | None, action: ModerationAction, refusal: str) -> None:
        self._patterns = patterns
        self._action = action
        self._refusal = refusal

    @classmethod
    def build(
        cls,
        words: Iterable[str],
        allow: Iterable[str] = (),
        action: ModerationAction = ModerationAction.REJECT,
        refusal: str = "",
    ) -> Self:
        """A moderator of `words`; a match inside one of the `allow` phrases passes.

        `refusal` takes the place of an answer in which a word turns up, where `action` is reject. Words of scripts with
        spaces match whole words alone, others anywhere. Raises WordListInvalid.
        """
        listed = _variants(words, "moderation.wordLists")
        if not listed:
            return cls(None, action, refusal)
        return cls(_Patterns(listed, _variants(allow, "moderation.allow")), action, refusal)

    def swap(self, other: Moderator) -> None:
        """Go by another's words from the next text on; streams under way keep theirs."""
        self._patterns = other._patterns

    def check(self, text: str) -> Verdict:
        """The verdict on a whole text."""
        patterns = self._patterns
        if patterns is None:
            return Verdict(False, text)
        spans = patterns.spans(fold(text))
        if not spans:
            return Verdict(False, text)
        _, offsets = fold_pieces(text)
        matches = tuple(
            Match(patterns.words[index], offsets[start], offsets[end - 1] + 1) for start, end, index in spans
        )
        masked = _masked(text, [(match.start, match.end) for match in matches])
        return Verdict(self._action is ModerationAction.REJECT, masked, matches)

    def stream(self) -> StreamModerator:
        """A moderator of one answer."""
        return StreamModerator(self._patterns, self._action, self._refusal)


class StreamModerator:
    """Checks one answer as it streams. What comes out does not depend on how the answer was cut into deltas.

    Only an end that may be the beginning of a listed word is held back. Masked words come out as `*`. Where the action
    is reject, the answer ends before the first listed word and the refusal follows it; the rest is dropped, and
    `is_refused` tells the caller that it may stop the model.
    """

    def __init__(self, patterns: _Patterns | None, action: ModerationAction, refusal: str) -> None:
        self._patterns = patterns
        self._action = action
        self._refusal = refusal
        self._text = ""
        """Text that is not sent, after enough of what is sent to find the words that reach across."""
        self._folded = ""
        self._offsets: list[int] = []
        self._sent = 0
        """Characters of `_text` that are sent."""
        self._decided = 0
        """Characters of `_folded` that can no longer be the start of anything."""
        self._has_sent = False
        self.is_refused = False

    def feed(self, delta: str) -> str:
        """The next safe piece of the answer; may be empty."""
        if self._patterns is None:
            return delta
        if self.is_refused or not delta:
            return ""
        folded, offsets = fold_pieces(delta, self._folded[-1:])
        self._offsets += [len(self._text) + offset for offset in offsets]
        self._text += delta
        self._folded += folded
        self._decided = self._patterns.undecided(self._folded, self._decided)
        if self._decided < len(self._folded):
            return self._release(self._patterns, self._offsets[self._decided])
        return self._release(self._patterns, len(self._text))

    def finish(self) -> str:
        """What is left once the answer is complete, or broke off."""
        if self._patterns is None or self.is_refused:
            return ""
        return self._release(self._patterns, len(self._text))

    def _release(self, patterns: _Patterns, cut: int) -> str:
        """Send `_text` up to `cut`, before which every match is known."""
        if cut == self._sent:
            return ""
        # A match that starts behind the cut may yet turn out to be none; one that ended before `_sent` is out already.
        found = [(self._offsets[start], self._offsets[end - 1] + 1) for start, end, _ in patterns.spans(self._folded)]
        begun = [(start, end) for start, end in found if start < cut and end > self._sent]
        if begun and self._action is ModerationAction.REJECT:
            return self._refuse(begun[0][0])
        piece = (_masked(self._text, begun) if begun else self._text)[self._sent : cut]
        self._sent = cut
        self._has_sent = True
        self._forget(patterns.longest)
        return piece

    def _refuse(self, end: int) -> str:
        self.is_refused = True
        piece = self._text[self._sent : end]
        return f"{piece}\n\n{self._refusal}" if piece or self._has_sent else self._refusal

    def _forget(self, longest: int) -> None:
        """Drop sent text that no match with text still to come can reach. At least one folded character stays: spaces
        are squeezed after it."""
        keep = self._first_piece(self._first_piece(self._decided) - longest)
        if keep <= 0:
            return
        first = self._offsets[keep]
        self._text = self._text[first:]
        self._folded = self._folded[keep:]
        self._offsets = [offset - first for offset in self._offsets[keep:]]
        self._sent -= first
        self._decided -= keep

    def _first_piece(self, place: int) -> int:
        """The first folded character of the character that `place` comes from (㏂ folds to four)."""
        while 0 < place < len(self._offsets) and self._offsets[place - 1] == self._offsets[place]:
            place -= 1
        return place


class _Patterns:
    """Folded words and allowed phrases, ready to be searched for."""

    def __init__(self, listed: dict[str, str], allowed: dict[str, str]) -> None:
        self._listed = list(listed)
        self.words = list(listed.values())
        """The words as they were listed, by the index of their pattern."""
        self._allowed = list(allowed)
        self._find_listed = AhoCorasick(self._listed).find_matches_as_indexes
        self._find_allowed = AhoCorasick(self._allowed).find_matches_as_indexes if allowed else None
        self._sorted = sorted({*listed, *allowed})
        self._firsts = frozenset(pattern[0] for pattern in self._sorted)
        self.longest = max(map(len, self._sorted))

    def spans(self, folded: str) -> list[Span]:
        """Listed words that are not inside an allowed phrase, by their start, in characters of `folded`."""
        found = self._find_listed(folded, overlapping=True)
        if not found:
            return []
        spans = [(start, end, index) for index, start, end in found if _is_whole(folded, start, end)]
        if spans and self._find_allowed is not None:
            allowed = self._find_allowed(folded, overlapping=True)
            cover = _Cover([(start, end) for _, start, end in allowed if _is_whole(folded, start, end)])
            spans = [span for span in spans if not cover.holds(span[0], span[1])]
        return sorted(spans)

    def undecided(self, folded: str, decided: int) -> int:
        """Where the first pattern may begin that the end of `folded` leaves open; its length when there is none."""
        for start in range(max(decided, len(folded) - self.longest), len(folded)):
            if folded[start] in self._firsts and self._may_start(folded, start) and self._is_open(folded[start:]):
                return start
        return len(folded)

    @staticmethod
    def _may_start(folded: str, start: int) -> bool:
        return start == 0 or not (is_word_character(folded[start]) and is_word_character(folded[start - 1]))

    def _is_open(self, tail: str) -> bool:
        """Whether `tail` is the beginning of a pattern, or a pattern that the next character may deny."""
        place = bisect_left(self._sorted, tail)
        if place < len(self._sorted) and self._sorted[place] == tail:
            if is_word_character(tail[-1]):
                return True
            place += 1
        return place < len(self._sorted) and self._sorted[place].startswith(tail)


class _Cover:
    """Allowed stretches of a text, to be asked in logarithmic time whether one of them holds a match."""

    def __init__(self, stretches: list[tuple[int, int]]) -> None:
        stretches.sort()
        self._starts = [start for start, _ in stretches]
        self._reach = list(accumulate((end for _, end in stretches), max))

    def holds(self, start: int, end: int) -> bool:
        """Whether one stretch begins at `start` or before and ends at `end` or later."""
        place = bisect_right(self._starts, start)
        return place > 0 and self._reach[place - 1] >= end


def _is_whole(folded: str, start: int, end: int) -> bool:
    """Whether a match does not cut through a word of a script with spaces."""
    is_cut_before = start > 0 and is_word_character(folded[start]) and is_word_character(folded[start - 1])
    is_cut_after = end < len(folded) and is_word_character(folded[end - 1]) and is_word_character(folded[end])
    return not (is_cut_before or is_cut_after)


def _variants(words: Iterable[str], source: str) -> dict[str, str]:
    """Patterns and the words they stand for: as they are, and simplified word by word as users' texts come."""
    patterns: dict[str, str] = {}
    for word in words:
        checked = _checked(word, source)
        for variant in (checked, normalise(checked)):
            patterns.setdefault(fold(variant).strip(), word)
    return patterns


def _checked(word: str, where: str) -> str:
    if len(word) > MAX_WORD_LENGTH:
        raise WordListInvalid(
            f"{where}: {word[:20]!r}... has {len(word)} characters; write one word or phrase a line, of at most"
            f" {MAX_WORD_LENGTH} characters"
        )
    if not fold(word).strip(" *"):
        raise WordListInvalid(f"{where}: {word!r} holds nothing to look for; remove the line or write a word")
    if any(is_invisible(character) and character.isascii() for character in word):
        raise WordListInvalid(f"{where}: {word[:20]!r} holds a control character; the list must be plain text (UTF-8)")
    return word


def _masked(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """The text with `*` for every character inside a span."""
    characters = list(text)
    for start, end in spans:
        characters[start:end] = "*" * (end - start)
    return "".join(characters)
