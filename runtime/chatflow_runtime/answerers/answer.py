"""What an answerer gives, before the turn makes a reply of it."""

from __future__ import annotations

import msgspec

from chatflow_runtime.domain.reply import Citation, Origin, Usage


class Answer(msgspec.Struct, frozen=True):
    """A text and where it comes from. `is_partial`: the stream broke off after its first delta."""

    text: str
    origin: Origin
    citations: tuple[Citation, ...] = ()
    usage: Usage | None = None
    model: str | None = None
    is_partial: bool = False
    retry_after_s: int | None = None
    """When the question is worth asking again: of a static reply in the place of a model that wakes."""
