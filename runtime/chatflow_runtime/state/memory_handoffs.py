"""The in-memory twin of `redis_handoffs`, beside that of the conversations, which it goes through."""

from __future__ import annotations

from chatflow_runtime.domain.handoff import returned
from chatflow_runtime.ports import Handoff, Word
from chatflow_runtime.state.memory_store import MemoryStore


class MemoryHandoffs:
    """Handoffs without a server."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def speak(self, word: Word) -> str:
        """Put a word into history and outbox, and end the handoff where it does; its outbox id. NotHandedOver unless
        the conversation is in a handoff, or the word was taken before."""
        return self._store.speak(word, returned(word.uid, word.notice.at_ms))

    async def look(self, uid: str) -> Handoff:
        """Where a conversation stands."""
        return self._store.handoff(uid)
