"""Who may speak as whom, as plain data. `web.gate` decides by it; `adapters.tokens` and `bootstrap` make it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

ANONYMOUS = "anon-"
"""How the ids of anonymous users begin; an identity provider's users never do."""
SHORTEST_API_KEY = 16
SHORTEST_SESSION_KEY = 32


@dataclass(frozen=True, slots=True)
class Known:
    """What a token says: the user, and the Unix time in s until which it does."""

    uid: str
    until_s: float


def lines_of(text: str) -> list[str]:
    """The entries of a Secret that holds several: one a line, without blank lines and comments (#)."""
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def keys_of(text: str, shortest: int) -> list[str]:
    """The keys of such a Secret; ValueError where there is none, or one that is too easily guessed."""
    keys = lines_of(text)
    if not keys:
        raise ValueError("it holds no key; write one a line")
    for number, key in enumerate(keys, start=1):
        if len(key) < shortest:
            raise ValueError(f"key {number} has {len(key)} characters; use at least {shortest} random ones")
    return keys


def digest_of(key: str) -> bytes:
    """What is compared in an API key's stead, so that the time it takes tells nothing about the key."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def digests_of(keys: Iterable[str]) -> frozenset[bytes]:
    """The digests of API keys."""
    return frozenset(map(digest_of, keys))
