"""Who may speak as whom, as plain data. `web.gate` decides by it; `adapters.tokens` and `bootstrap` make it."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Sequence
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


def client_address(peer: str, forwarded: Sequence[str], trusted: int) -> str:
    """The address that a request comes from, as the outermost of our own proxies saw it: `forwarded` are the values of
    X-Forwarded-For, to which each of the `trusted` proxies has added whom it heard. What stands before that was said by
    the client. Of IPv6 the network of 64 bits, since its holder has all addresses of it."""
    heard = [part.strip() for value in forwarded for part in value.split(",")]
    chain = [*heard, peer]
    said = chain[max(0, len(chain) - 1 - trusted)]
    try:
        address = ipaddress.ip_address(_without_port(said))
    except ValueError:
        # No address, but always the same for the same client.
        return hashlib.sha256(said.encode()).hexdigest()[:16]
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def _without_port(said: str) -> str:
    """Some proxies add it: 192.0.2.7:4711, [2001:db8::7]:4711."""
    if said.startswith("["):
        return said[1:].partition("]")[0]
    return said.partition(":")[0] if said.count(":") == 1 else said


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
