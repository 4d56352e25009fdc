"""The trained artefacts on disk, and the watch that swaps them in while the gateway runs.

Whoever trains (`chatflow up`, or a Job on a cluster) writes `intent/<version>/` and `knowledge/<version>/` and then
replaces `current.json` by a rename; a gateway never sees half of a pair.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog
from chatflow_models.intent import IntentError, IntentModel

from chatflow_runtime.adapters.knowledge import KnowledgeIndex
from chatflow_runtime.errors import ArtefactInvalid

log = structlog.get_logger()

POINTER = "current.json"
POLL_S = 1.0
RETRY_S = 30.0
"""Between two attempts at the same pair."""


class Versions(msgspec.Struct, frozen=True):
    """Which artefacts are in force; `intent` is None for a flow without intents."""

    knowledge: str
    intent: str | None = None


@dataclass(frozen=True, slots=True)
class Artefacts:
    """One pair, loaded."""

    versions: Versions
    index: KnowledgeIndex
    intent: IntentModel | None


@dataclass(frozen=True, slots=True)
class ArtefactFolder:
    """The folder in which they lie."""

    path: Path
    has_models: bool = True
    """Whether intent models are loaded; a gateway that asks an intent server needs the indexes alone."""

    @property
    def pointer(self) -> Path:
        """The file that names the pair in force."""
        return self.path / POINTER

    def current(self) -> Versions | None:
        """What the pointer names; None when there is no pointer yet, ArtefactInvalid when it cannot be read."""
        pointer = self.pointer
        try:
            return msgspec.json.decode(pointer.read_bytes(), type=Versions)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ArtefactInvalid(f"{pointer}: {error.strerror}; make it readable") from error
        except msgspec.MsgspecError as error:
            raise ArtefactInvalid(f"{pointer}: {error}; build the artefacts again") from error

    def load(self, versions: Versions) -> Artefacts:
        """A pair, checked; ArtefactInvalid names what is damaged."""
        try:
            index = KnowledgeIndex.load(self.path / "knowledge" / versions.knowledge)
            intent = None
            if versions.intent is not None and self.has_models:
                intent = IntentModel.load(self.path / "intent" / versions.intent)
        except (IntentError, OSError) as error:
            raise ArtefactInvalid(str(error)) from error
        return Artefacts(versions, index, intent)


class Follower:
    """Hands to `swap` whatever the pointer names, as soon as it can be loaded: from the first pair on, which may be
    there already or appear only later."""

    def __init__(
        self,
        folder: ArtefactFolder,
        swap: Callable[[Artefacts], None],
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._folder = folder
        self._swap = swap
        self._wait = wait
        self._in_use: Versions | None = None
        self._refused: Versions | None = None
        self._retry_after = 0
        """Looks at the pointer until a refused pair is tried again."""
        self._reason = f"there is no {folder.pointer} yet"
        self._has_looked = asyncio.Event()

    async def run(self) -> None:
        """Follow the pointer until cancelled. A pair that cannot be loaded is logged and the one in use stays; it is
        tried again every RETRY_S, since the reason may pass."""
        while True:
            try:
                await self._look()
            except ArtefactInvalid as error:
                if str(error) != self._reason:
                    log.error("artefacts_refused", reason=str(error))
                self._reason = str(error)
            self._has_looked.set()
            await self._wait(POLL_S)

    async def check(self) -> None:
        """Return at once when artefacts are in use; ArtefactInvalid says why none are, after the first attempt."""
        await self._has_looked.wait()
        if self._in_use is None:
            raise ArtefactInvalid(self._reason)

    async def _look(self) -> None:
        named = await asyncio.to_thread(self._folder.current)
        if named is None:
            return
        if named == self._in_use:
            self._refused, self._reason = None, ""
            return
        if named == self._refused and self._retry_after > 0:
            self._retry_after -= 1
            return
        self._refused, self._retry_after = named, round(RETRY_S / POLL_S)
        self._swap(await asyncio.to_thread(self._folder.load, named))
        self._in_use, self._refused, self._reason = named, None, ""
        log.info("artefacts_in_use", intent=named.intent, knowledge=named.knowledge)
