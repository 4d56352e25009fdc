"""What the knowledge base holds, as read from its sources and as stored in an index.

`sources`, `pairs` and `documents` make entries, `index` stores them, `retriever` answers with them.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Literal

import msgspec

Kind = Literal["pair", "document"]
INTENT = re.compile(r"[a-z]([a-z0-9_-]{0,61}[a-z0-9])?")
"""Names of intents, as in the manifest."""


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One piece of knowledge: a question-answer pair, or a chunk of a document.

    `variants` are the texts that a question is compared with one by one: the question and its other wordings, or the
    headings that lead to a chunk. `title` and `text` are what a reply shows.
    """

    id: str
    title: str
    text: str
    kind: Kind
    source: str
    variants: tuple[str, ...]
    url: str | None = None
    intent: str | None = None
    topic: str | None = None


@dataclass(frozen=True, slots=True)
class TrainingExample:
    """A question that is known to have an intent. `answer` is the id of the entry that answers it."""

    text: str
    intent: str
    answer: str


@dataclass(frozen=True, slots=True)
class Knowledge:
    """Everything that a flow's sources hold. `examples` are the pairs' questions, for the intent classifier."""

    entries: tuple[Entry, ...]
    examples: tuple[TrainingExample, ...] = ()


def fingerprint(*parts: str) -> str:
    """Twelve hex digits that depend on the parts alone; chunk ids and derived pair ids end in them."""
    digest = hashlib.blake2b(digest_size=6)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()
