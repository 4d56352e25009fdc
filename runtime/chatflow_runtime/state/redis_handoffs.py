"""Conversations that a person answers, on Redis or Valkey: ports.Handoffs, over the keys of `redis_store`."""

from __future__ import annotations

from typing import Any

from chatflow_api import names

from chatflow_runtime.domain.conversation import Event, Message, Scene
from chatflow_runtime.domain.deliveries import Hook
from chatflow_runtime.domain.handoff import returned
from chatflow_runtime.errors import NotHandedOver
from chatflow_runtime.ports import Clock, Handoff, Word
from chatflow_runtime.state.codec import DELIVERIES, MESSAGES, NOTICES, too_new
from chatflow_runtime.state.keys import keys_of
from chatflow_runtime.state.link import Link
from chatflow_runtime.state.rules import Rules
from chatflow_runtime.state.scripts import Status, render


class RedisHandoffs:
    """Handoffs over a gateway's connection. With a `clock` its time takes the place of the server's (tests)."""

    def __init__(self, link: Link, flow: str, rules: Rules, clock: Clock | None = None) -> None:
        self._link = link
        self._flow = flow
        self._scripts = render(rules)
        self._history_messages = rules.history_messages
        self._clock = clock

    async def speak(self, word: Word) -> str:
        """Put a word into history and outbox, and end the handoff where it does; its outbox id. NotHandedOver unless
        the conversation is in a handoff, or the word was taken before."""
        number, keys = names.partition(word.uid), keys_of(self._flow, word.uid)
        at_ms = word.notice.at_ms
        message = Message("assistant", word.text or "", at_ms, word.message_id, word.agent)
        result: list[Any] = await self._link.run(
            self._scripts.agent,
            7,
            keys.conversation,
            keys.history,
            keys.replies,
            keys.outbox,
            keys.due,
            names.hooks_key(self._flow, number),
            names.dead_key(self._flow, number),
            "" if self._clock is None else self._clock.now_ms(),
            word.uid,
            word.field,
            Event.RETURNED if word.ends else "",
            MESSAGES.encode(message) if word.text else b"",
            NOTICES.encode(word.notice),
            keys.channel,
            Hook.HANDOFF,
            DELIVERIES.encode(returned(word.uid, at_ms)),
            names.work_channel(self._flow, number),
            number,
            word.handoff_id or "",
        )
        match Status(result[0]):
            case Status.DONE | Status.ANSWERED:
                found: bytes = result[1]
                return found.decode()
            case Status.GONE:
                raise NotHandedOver(result[1].decode(), word.handoff_id)
            case Status.TOO_NEW:
                raise too_new(f"the conversation of {word.uid!r}", result[1])
            case other:
                raise AssertionError(f"agent.lua returned {other!r}")

    async def look(self, uid: str) -> Handoff:
        """Where a conversation stands."""
        keys = keys_of(self._flow, uid)
        result, history = await self._link.run_then(
            self._scripts.handoff, (1, keys.conversation), ("LRANGE", keys.history, -self._history_messages, -1)
        )
        if result[0] == Status.TOO_NEW:
            raise too_new(f"the conversation of {uid!r}", result[1])
        _, scene, handoff = result
        messages = tuple(MESSAGES.decode_all(history))
        return Handoff(Scene(scene.decode()), None if handoff is None else handoff.decode(), messages)
