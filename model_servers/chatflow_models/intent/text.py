"""Text as the intent model sees it: normalisation and n-grams, the same code for training and for scoring.

Scripts are told apart by the characters themselves, so that mixed text works: runs of a script without spaces
(Chinese, Japanese, Thai and their like) give character n-grams, all other words give words, pairs of words and the
pieces of each word.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from itertools import pairwise
from operator import add

GIST_END = 200
"""Characters that count at either end of a long text."""
_INVISIBLE = re.compile("[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_TOKEN = re.compile(rf"[{_UNSPACED}]+|[^\W_{_UNSPACED}]+")
_LONG_NUMBER = re.compile(r"\d{3,}")


def normalise(text: str) -> str:
    """Text in NFKC and lower case, without invisible characters and lone surrogates, white space squeezed.

    Applying it twice changes nothing. Traditional characters stay as they are: the gateway folds them beforehand.
    """
    if not text.isascii():
        text = _INVISIBLE.sub("", text)
        # Lower-casing may leave characters that compose again, hence the second pass.
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower())
    return " ".join(text.lower().split())


def is_unspaced(token: str) -> bool:
    """Whether a token belongs to a script that writes no spaces between words."""
    first = ord(token[0])
    return (
        0x3040 <= first <= 0x30FF
        or 0x3400 <= first <= 0x4DBF
        or 0x4E00 <= first <= 0x9FFF
        or 0x0E00 <= first <= 0x0EFF
        or 0x1000 <= first <= 0x109F
        or 0x1780 <= first <= 0x17FF
        or 0xF900 <= first <= 0xFAFF
        or 0x20000 <= first <= 0x3FFFF
    )


def tokens(text: str) -> list[str]:
    """Words and runs of unspaced script of a normalised text; numbers of three digits and more read 000.

    An order number must not make a question look unlike all others.
    """
    return _TOKEN.findall(_LONG_NUMBER.sub("000", text))


@dataclass(frozen=True, slots=True)
class Grams:
    """The n-grams of a text."""

    words: list[str]
    """Words and pairs of successive words; of unspaced script single characters and pairs. None twice."""
    spelt: list[str]
    """The words of spaced scripts, whose pieces `spelling` gives."""
    pieces: list[str]
    """Pairs and triples of characters of unspaced script, repeated ones as often as they occur."""


def grams(text: str) -> Grams:
    """The n-grams of a normalised text, in an order that depends on the text alone."""
    words: list[str] = []
    spelt: list[str] = []
    pieces: list[str] = []
    for token in tokens(text):
        if token.isascii() or not is_unspaced(token):
            spelt.append(token)
        else:
            pairs = list(map(add, token, token[1:]))
            words += token
            words += pairs
            pieces += pairs
            pieces += map(add, pairs, token[2:])
    words += spelt
    words += [f"{first} {second}" for first, second in pairwise(spelt)]
    return Grams(list(dict.fromkeys(words)), spelt, pieces)


def spelling(word: str) -> list[str]:
    """The pieces of a word of a spaced script: 2 to 4 characters, its borders marked by spaces; none twice."""
    edged = f" {word} "
    pairs = list(map(add, edged, edged[1:]))
    triples = list(map(add, pairs, edged[2:]))
    return list(dict.fromkeys([*pairs, *triples, *map(add, triples, edged[3:])]))


def gist(text: str) -> str:
    """A normalised text, a long one without its middle: what it is about stands where it begins or ends, and encoders
    take a time that grows with the length."""
    return text if len(text) <= 2 * GIST_END else f"{text[:GIST_END]} {text[-GIST_END:]}"
