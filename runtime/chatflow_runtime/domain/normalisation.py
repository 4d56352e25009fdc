"""One spelling for what looks the same: the first thing done to a user's text, and to every text it is compared with.

Called by `turn` for messages, by the knowledge index and the intent model for their content, and by `moderation`.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

from zhconv_rs import zhconv

_INVISIBLE = (
    (0x034F, 0x034F),  # combining grapheme joiner
    (0x115F, 0x1160),  # Hangul fillers
    (0x17B4, 0x17B5),  # Khmer inherent vowels
    (0x180B, 0x180F),  # Mongolian variation selectors
    (0x2800, 0x2800),  # blank Braille pattern
    (0x3164, 0x3164),  # Hangul filler
    (0xFE00, 0xFE0F),  # variation selectors
    (0xFFA0, 0xFFA0),  # half-width Hangul filler
    (0xE0000, 0xE0FFF),  # tags and variation selectors supplement
)
"""Characters without a shape whose category is neither control (Cc) nor format (Cf): Unicode's
Default_Ignorable_Code_Point (DerivedCoreProperties.txt), and the blank Braille pattern."""

_BMP_HAN = range(0x3400, 0xA000)
_KEPT_CHARACTERS = 20_000
"""Cached characters at most; a text made of rare ones cannot fill the memory."""


def normalise(text: str) -> str:
    """The text in NFKC, without invisible characters, in simplified characters, with single spaces and its case kept.

    Plain ASCII pays for the white space alone. Characters that Unicode composes (a letter and its accent) come out
    composed. Traditional characters become those of mainland China, word by word where that matters (餘額 -> 余额,
    乾隆 stays); a text without any is not converted.
    """
    if text.isascii():
        return _squeeze(text if text.isprintable() else text.translate(_CHARACTERS))
    text = _UNUSUAL.sub(_replace, text)
    if not unicodedata.is_normalized("NFKC", text):
        text = unicodedata.normalize("NFKC", text)
    return _squeeze(simplify(text))


def simplify(text: str) -> str:
    """The text in simplified characters."""
    # The third argument keeps zhconv from reading MediaWiki markup, which a user's "-{...}-" would be taken for.
    return zhconv(text, "zh-CN", False) if _traditional_pattern().search(text) else text


def simplify_character(character: str) -> str:
    """One character's simplified form, whatever stands beside it."""
    return _traditional().get(character, character)


def is_invisible(character: str) -> bool:
    """Whether a character has no shape and takes no space: controls, zero-width characters, lone surrogates."""
    if unicodedata.category(character) in ("Cc", "Cf", "Cs"):
        return not character.isspace()
    code = ord(character)
    return any(first <= code <= last for first, last in _INVISIBLE)


class _Characters(dict[int, str]):
    """What each character becomes on its own; filled as characters are met."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if character.isspace():
            becomes = " "
        elif is_invisible(character):
            becomes = ""
        else:
            becomes = unicodedata.normalize("NFKC", character)
        if len(self) < _KEPT_CHARACTERS:
            self[code] = becomes
        return becomes


_CHARACTERS = _Characters()
_UNUSUAL = re.compile("[^ -~\u3001\u3002\u4e00-\u9fff]+")
"""What may have to change: not printable ASCII, not the common Han characters, not 、 or 。"""


def _replace(match: re.Match[str]) -> str:
    return match.group().translate(_CHARACTERS)


def _squeeze(text: str) -> str:
    """Single spaces, none at the ends; every white space is a plain space already."""
    return " ".join(text.split()) if "  " in text else text.strip(" ")


@cache
def _traditional() -> dict[str, str]:
    """Traditional characters of the basic plane, and what each becomes."""
    characters = [chr(code) for code in _BMP_HAN]
    # A line each: no word rule can span two of them. Twice, for the few that change in two steps (戱 -> 戯 -> 戏).
    lines = zhconv(zhconv("\n".join(characters), "zh-CN", False), "zh-CN", False).split("\n")
    return {old: new for old, new in zip(characters, lines, strict=True) if old != new}


@cache
def _traditional_pattern() -> re.Pattern[str]:
    """Finds a character that may have to be simplified; those outside the basic plane are rare, and all count."""
    return re.compile(f"[{''.join(_traditional())}\U00020000-\U000323af]")
