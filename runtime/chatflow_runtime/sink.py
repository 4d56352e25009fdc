"""Where the pieces of a streamed answer go; `web` implements it for SSE and WebSocket."""

from __future__ import annotations

from typing import Protocol


class DeltaSink(Protocol):
    """Takes pieces of a reply. Raises ConnectionError when the user has left, which cancels the answer."""

    async def delta(self, text: str) -> None:
        """The next piece of the reply's text."""
