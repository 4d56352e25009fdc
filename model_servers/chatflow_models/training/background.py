"""Everyday questions that serve as distant out-of-scope examples. Used by `fit`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from chatflow_models.intent.text import is_unspaced, normalise, tokens

_LEAST_SHARE = 0.1


@cache
def _questions() -> tuple[str, ...]:
    text = files(__package__).joinpath("background.txt").read_text(encoding="utf-8")
    return tuple(normalise(line) for line in text.splitlines() if line and not line.startswith("#"))


def _is_unspaced_text(text: str) -> bool:
    return any(is_unspaced(token) for token in tokens(text))


def background_questions(texts: Sequence[str]) -> list[str]:
    """Normalised everyday questions in the scripts of at least a tenth of the texts.

    A language that the examples lack would only teach that this language is out of scope.
    """
    unspaced = sum(map(_is_unspaced_text, texts)) / max(len(texts), 1)
    wanted = {is_wanted for is_wanted, share in ((True, unspaced), (False, 1 - unspaced)) if share >= _LEAST_SHARE}
    return [question for question in _questions() if _is_unspaced_text(question) in wanted]
