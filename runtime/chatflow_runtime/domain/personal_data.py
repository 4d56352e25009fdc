"""Personal data in what users write: phone numbers, identity cards, bank cards and e-mail addresses. Pure.

Called before a text is kept for people who need not know them: records for labelling, comments beside ratings, logs.
What is found gives way to the name of its kind, so that a question still reads, and is still learnt from, as one. The
conversation itself keeps what was said: a business call may need it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from datetime import date

PHONE, IDENTITY, CARD, EMAIL = "[phone]", "[id-card]", "[bank-card]", "[e-mail]"

_EMAIL = re.compile(r"(?<![\w.%+-])[\w.%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}")
_GROUPS = re.compile(r"(?<![0-9A-Za-z])[+(]?[0-9]+(?:[ .()-]{1,2}[0-9]+)*[Xx]?(?![0-9A-Za-z])")
"""Digits that belong together, however they are grouped. One that does not end with a sign may be followed by Han
characters."""
_GROUP = re.compile(r"[0-9]+[Xx]?")
_MOST_GROUPS = 8
"""Of one number."""
_MAINLAND_PHONE = re.compile(r"(?:(?:00)?86)?1[3-9][0-9]{9}")
_NORTH_AMERICAN_PHONE = re.compile(r"(?:1 )?[2-9][0-9]{2} [2-9][0-9]{2} [0-9]{4}")
"""Groups with spaces between them: ten digits in one could be any number."""
_CARD = re.compile(r"[2-6][0-9]{12,18}")
_IDENTITY = re.compile(r"[1-9][0-9]{16}[0-9Xx]")
_IDENTITY_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
"""GB 11643-1999: the last character is the one that makes the weighted sum 1 modulo 11."""
_IDENTITY_CHECK = "10X98765432"


def without_personal_data(text: str) -> str:
    """The text with each number and address replaced by the name of its kind, in linear time.

    Found are mainland phone numbers, North American ones written in groups, others with `+` and 8 to 15 digits;
    identity cards (18 digits) and bank cards (13 to 19), both by their check digits; in any grouping, also in full
    width.
    """
    if not any(character.isdecimal() or character in "@＠" for character in text):
        return text
    plain = _plain(text)
    spans = sorted([*_emails(plain), *_numbers(plain)])
    parts, place = [], 0
    for start, end, kind in spans:
        if start >= place:
            parts += [text[place:start], kind]
            place = end
    return "".join([*parts, text[place:]])


Span = tuple[int, int, str]


def _plain(text: str) -> str:
    """The same length, with digits and the signs between them as ASCII has them."""
    if text.isascii():
        return text
    return "".join(map(_plain_character, text))


def _plain_character(character: str) -> str:
    if character.isascii():
        return character
    folded = unicodedata.normalize("NFKC", character)
    return folded if len(folded) == 1 and folded.isascii() else character


def _emails(text: str) -> Iterator[Span]:
    for match in _EMAIL.finditer(text) if "@" in text else ():
        yield match.start(), match.end(), EMAIL


def _numbers(text: str) -> Iterator[Span]:
    for match in _GROUPS.finditer(text):
        groups = [(one.start(), one.end()) for one in _GROUP.finditer(text, match.start(), match.end())]
        first = 0
        while first < len(groups):
            # The longest number that begins here; what is in it begins no other.
            for last in range(min(len(groups), first + _MOST_GROUPS) - 1, first - 1, -1):
                start, end = groups[first][0], groups[last][1]
                before = text[max(0, start - 1) : start]
                kind = _kind([text[a:b] for a, b in groups[first : last + 1]], before)
                if kind is not None:
                    yield start - (before in ("+", "(")), end, kind
                    first = last
                    break
            first += 1


def _kind(groups: Sequence[str], before: str) -> str | None:
    number = "".join(groups)
    if before == "+" and number.isdigit() and 8 <= len(number) <= 15:
        return PHONE
    if len(number) == 18 and _is_identity(number):
        return IDENTITY
    if _MAINLAND_PHONE.fullmatch(number) or _NORTH_AMERICAN_PHONE.fullmatch(" ".join(groups)):
        return PHONE
    if _CARD.fullmatch(number) and _passes_luhn(number):
        return CARD
    return None


def _is_identity(number: str) -> bool:
    if _IDENTITY.fullmatch(number) is None:
        return False
    try:
        date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        return False
    total = sum(int(digit) * weight for digit, weight in zip(number, _IDENTITY_WEIGHTS, strict=False))
    return _IDENTITY_CHECK[total % 11] == number[17].upper()


def _passes_luhn(number: str) -> bool:
    """ISO/IEC 7812-1, annex B."""
    total = 0
    for place, digit in enumerate(reversed(number)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0
