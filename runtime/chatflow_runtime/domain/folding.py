"""Text as word lists see it: one form for every way to write the same letters, with the way back to the original.

Called by `moderation`. Folding looks at one character at a time (white space apart: a run counts as one space), so that
a text can be folded piece by piece as it streams.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

from chatflow_runtime.domain.normalisation import is_invisible, simplify_character

_KEPT_CHARACTERS = 20_000
"""Cached characters at most; a text made of rare ones cannot fill the memory."""


def fold(text: str) -> str:
    """The text in lower case, half width, simplified characters, without accents and invisible characters, with Latin
    letters for those of other scripts that look like them.

    Characters are decomposed (NFKD) and stripped of their marks: what is equal under NFKC folds to the same.
    """
    is_plain = text.isascii() and text.isprintable()
    folded = text.lower() if is_plain else _unfolded_pattern().sub(_replace, text)
    return _RUN_OF_SPACES.sub(" ", folded) if "  " in folded else folded


def fold_pieces(text: str, last: str = "") -> tuple[str, list[int]]:
    """`fold(text)`, and for each of its characters the index of the character in `text` that it comes from.

    `last` is the folded character before the text, if any: a space that follows a space is left out.
    """
    folded: list[str] = []
    offsets: list[int] = []
    for index, character in enumerate(text):
        for becomes in _FOLDS[ord(character)]:
            if becomes == " " == last:
                continue
            folded.append(becomes)
            offsets.append(index)
            last = becomes
    return "".join(folded), offsets


def is_word_character(character: str) -> bool:
    """Whether a folded character belongs to a script that separates words by spaces: letters and digits, but no Han
    characters, kana or Hangul (which NFKD takes apart into jamo)."""
    return character.isalnum() and (character < "\u1100" or "\u1200" <= character < "\u2e80")


class _Folds(dict[int, str]):
    """What each character folds to; filled as characters are met."""

    def __missing__(self, code: int) -> str:
        becomes = _fold_character(chr(code))
        if len(self) < _KEPT_CHARACTERS:
            self[code] = becomes
        return becomes


_FOLDS = _Folds()
_RUN_OF_SPACES = re.compile(" {2,}")
_MARKS = ("Mn", "Me")
_LOOKALIKES = dict(
    zip(
        "авгеһіјкӏмнорѕстухьԁԛԝѵαβγεζηικμνορτυχωհոօսցզıɑɡɩ",
        "abrehijklmhopsctyxbdqwvabyezhikmvoptuxwhnougqiagi",
        strict=True,
    )
)
"""Lower-case Cyrillic, Greek, Armenian and phonetic letters whose shape, or whose capital's shape, is that of a Latin
letter (Unicode Technical Standard 39, confusables). Words of those scripts fold like the texts that hold them, so they
are still found."""


def _fold_character(character: str) -> str:
    if character.isspace():
        return " "
    if is_invisible(character):
        return ""
    # Folding the case may compose anew, hence the second decomposition.
    lower = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", character).casefold())
    kept = (one for one in lower if unicodedata.category(one) not in _MARKS and not is_invisible(one))
    return "".join(" " if one.isspace() else _LOOKALIKES.get(one) or simplify_character(one) for one in kept)


def _replace(match: re.Match[str]) -> str:
    return match.group().translate(_FOLDS)


@cache
def _unfolded_pattern() -> re.Pattern[str]:
    """Finds what may change: everything but lower-case ASCII, its signs, and Han characters that stay as they are."""
    same = "".join(one for one in map(chr, range(0x4E00, 0xA000)) if simplify_character(one) == one)
    return re.compile(f"[^ -@\\[-`{{-~a-z\u3001\u3002{same}]+")
