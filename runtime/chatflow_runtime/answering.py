"""Answering a message as every channel does it: by the turn, and counted. Called by `web` and by `inbox_worker`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from chatflow_runtime.domain.conversation import Message
from chatflow_runtime.domain.reply import OutboxItem, Reply
from chatflow_runtime.errors import ChatFlowError
from chatflow_runtime.metrics import CLIENT_LEFT, Channel, Metrics
from chatflow_runtime.ports import UNMETERED, Clock, Entry
from chatflow_runtime.sink import DeltaSink


class Answering(Protocol):
    """`turn.TurnRunner`, as the channels see it."""

    async def answer(
        self,
        uid: str,
        message_id: str,
        text: str,
        sink: DeltaSink | None = None,
        history: tuple[Message, ...] | None = None,
        entry: Entry = UNMETERED,
    ) -> OutboxItem:
        """The committed reply; raises ChatFlowError."""


@dataclass(frozen=True, slots=True)
class Counted:
    """A runner whose answers and failures show in the metrics, by channel."""

    runner: Answering
    metrics: Metrics
    clock: Clock

    async def answer(
        self,
        channel: Channel,
        uid: str,
        message_id: str,
        text: str,
        sink: DeltaSink | None = None,
        history: tuple[Message, ...] | None = None,
        entry: Entry = UNMETERED,
    ) -> OutboxItem:
        """The committed reply; raises ChatFlowError."""
        metrics, clock = self.metrics, self.clock
        began_s = clock.monotonic_s()
        metrics.turn_began()
        try:
            item = await self.runner.answer(uid, message_id, text, sink, history, entry)
        except ChatFlowError as error:
            metrics.turn_failed(channel, error.code)
            raise
        except (asyncio.CancelledError, ConnectionError):
            metrics.turn_failed(channel, CLIENT_LEFT)
            raise
        except Exception:
            metrics.turn_failed(channel, ChatFlowError.code)
            raise
        finally:
            metrics.turn_ended()
        if isinstance(item.item, Reply):
            metrics.turn_answered(channel, item.item, clock.monotonic_s() - began_s)
        return item
