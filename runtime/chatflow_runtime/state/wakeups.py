"""Wake-ups: which user has news, and which inbox has messages. One pattern subscription a process for each.

`Watches` is a map from users to those who wait, for the in-memory twin as well; `Wakeups` feeds one from the state
server, and `WorkBell` tells a worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from chatflow_api.names import wake_channel, work_channel

from chatflow_runtime.ports import Watch
from chatflow_runtime.state.connection import Connection, Patience
from chatflow_runtime.state.wire import Push


class _EventWatch:
    """A Watch on an event."""

    def __init__(self) -> None:
        self.news = asyncio.Event()

    async def wait(self, timeout_s: float) -> bool:
        """True after a wake-up since the last call, False after the timeout."""
        if not self.news.is_set():
            try:
                async with asyncio.timeout(timeout_s):
                    await self.news.wait()
            except TimeoutError:
                return False
        self.news.clear()
        return True


class Watches:
    """Who waits for which user."""

    def __init__(self) -> None:
        self._of: dict[str, set[_EventWatch]] = {}

    @contextmanager
    def watch(self, uid: str) -> Iterator[Watch]:
        """Wake-ups of a user while the context lasts."""
        watch = _EventWatch()
        watches = self._of.setdefault(uid, set())
        watches.add(watch)
        try:
            yield watch
        finally:
            watches.discard(watch)
            if not watches and self._of.get(uid) is watches:
                del self._of[uid]

    def wake(self, uid: str) -> None:
        """Tell those who wait for a user."""
        for watch in self._of.get(uid, ()):
            watch.news.set()

    def wake_all(self) -> None:
        """Tell everyone, because wake-ups may have been lost."""
        for uid in self._of:
            self.wake(uid)


class _Subscription:
    """A pattern subscription that keeps itself up."""

    def __init__(self, url: str, name: str, pattern: bytes, on_push: Push, patience: Patience | None) -> None:
        self._connection = Connection(url, name=name, on_push=on_push, patterns=(pattern,), patience=patience)

    async def open(self) -> None:
        """Subscribe; StateUnavailable after the first failure, but attempts go on."""
        await self._connection.open()

    async def close(self) -> None:
        """End the subscription."""
        await self._connection.close()


class Wakeups(Watches, _Subscription):
    """Watches fed by the state server. After every (re)connection everyone is woken once."""

    def __init__(self, url: str, flow: str, *, patience: Patience | None = None) -> None:
        Watches.__init__(self)
        _Subscription.__init__(self, url, "chatflow-wakeups", _pattern(wake_channel, flow), self._on_push, patience)

    def _on_push(self, push: list[Any]) -> None:
        if push[0] == b"pmessage":
            if self._of:
                self.wake(push[3].decode())
        else:
            self.wake_all()


class WorkBell(_Subscription):
    """Tells a worker of new messages in inboxes: `ring` gets the partition, or None after every (re)connection, when
    some may have been missed."""

    def __init__(
        self, url: str, flow: str, ring: Callable[[int | None], None], *, patience: Patience | None = None
    ) -> None:
        super().__init__(url, "chatflow-work", _pattern(work_channel, flow), self._on_push, patience)
        self._ring = ring

    def _on_push(self, push: list[Any]) -> None:
        self._ring(int(push[3]) if push[0] == b"pmessage" else None)


def _pattern(channel: Callable[[str, int], str], flow: str) -> bytes:
    """All channels of a flow, as a glob pattern."""
    escaped = "".join(f"\\{letter}" if letter in "*?[]^\\" else letter for letter in flow)
    return (channel(escaped, 0).removesuffix("0}") + "*}").encode()
