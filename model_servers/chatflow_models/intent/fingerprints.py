"""Which questions a model was trained on, as hashes. Written by `training`, asked when two models are compared on
questions that one of them may have learned."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from .text import normalise, tokens


def fingerprint(text: str) -> int:
    """64 bits of a text as the model sees it: texts that differ in punctuation or in long numbers have the same."""
    cleaned = normalise(text)
    seen = " ".join(tokens(cleaned)) or cleaned
    return int.from_bytes(hashlib.blake2b(seen.encode(), digest_size=8).digest(), "big")


def fingerprints(texts: Iterable[str]) -> NDArray[np.uint64]:
    """Those of all texts, sorted, none twice: their order must not tell what stands beside what."""
    return np.array(sorted({fingerprint(text) for text in texts}), dtype=np.uint64)


def labelled_fingerprints(examples: Iterable[tuple[str, str]]) -> NDArray[np.uint64]:
    """Those of texts together with their labels, likewise."""
    return np.array(sorted({_of_labelled(text, label) for text, label in examples}), dtype=np.uint64)


def _of_labelled(text: str, label: str) -> int:
    hashed = hashlib.blake2b(f"{fingerprint(text)} {label}".encode(), digest_size=8)
    return int.from_bytes(hashed.digest(), "big")


def are_known(texts: Sequence[str], known: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """(n,) whether each text is among those of the given fingerprints."""
    return np.isin(np.array([fingerprint(text) for text in texts], dtype=np.uint64), known)
