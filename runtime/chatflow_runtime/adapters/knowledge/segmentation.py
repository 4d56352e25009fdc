"""Cuts a normalised text into the terms that lexical search counts. `lexical` calls it, for questions and for content.

Chinese, Japanese and Korean give single characters and pairs of neighbours; other scripts give stemmed words and the
words' own pieces, which still match when a word is misspelt or inflected in another way. On customer questions in
Chinese, single characters and pairs found the entry more often than the words of a segmenter (0.85 against 0.77 at
first place). Function words stay in: without them the entry was found less often in both languages, and their
inverse document frequency makes them count little anyway.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise

_SCRIPTS = r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]"
_UNSPACED = re.compile(_SCRIPTS)
_RUN = re.compile(rf"({_SCRIPTS}+)|([^\W_]+(?:['’][^\W_]+)?)")
_PIECE_LENGTH = 4
_LONGEST_WORD = 40
_MOST_DIGITS = 4
_ENDINGS = (("sses", "ss"), ("ies", "y"), ("ing", ""), ("ed", ""), ("s", ""))

SECONDARY_WEIGHT = 0.5
"""What a pair of characters or a piece of a word counts, compared with a character or a word."""


def terms(text: str) -> dict[str, int]:
    """The text's terms and how often each occurs.

    A word with more than four digits, such as an order number, gives none: it would only make the rest count less.
    """
    counts: dict[str, int] = {}
    for cjk, word in _RUN.findall(text.lower()):
        for term in (*cjk, *map("".join, pairwise(cjk))) if cjk else _word_terms(word):
            counts[term] = counts.get(term, 0) + 1
    return counts


def is_unspaced(text: str) -> bool:
    """Whether the text holds Chinese, Japanese or Korean."""
    return _UNSPACED.search(text) is not None


def is_secondary(term: str) -> bool:
    """Whether the term is a pair of characters or a piece of a word."""
    return term[0] == "~" or (len(term) == 2 and term[0] != "=")


@lru_cache(maxsize=20_000)
def _word_terms(word: str) -> tuple[str, ...]:
    word = word.replace("’", "'").removesuffix("'s")[:_LONGEST_WORD]
    if sum(map(str.isdigit, word)) > _MOST_DIGITS:
        return ()
    padded = f"_{word}_"
    pieces = (f"~{padded[start : start + _PIECE_LENGTH]}" for start in range(len(padded) - _PIECE_LENGTH + 1))
    return (f"={_stem(word)}", *pieces)


def _stem(word: str) -> str:
    """The word without the commonest English endings; what is left need not be a word."""
    if len(word) > 4:
        for ending, replacement in _ENDINGS:
            if word.endswith(ending) and not (ending == "s" and word.endswith("ss")):
                shorter = word.removesuffix(ending) + replacement
                word = shorter if len(shorter) >= 3 else word
                break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "lsz":
        word = word[:-1]
    return word.removesuffix("e") if len(word) > 4 else word
