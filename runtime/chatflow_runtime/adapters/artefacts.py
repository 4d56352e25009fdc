"""The trained artefacts on disk, and the watch that swaps newer ones in while the gateway runs.

Whoever trains (`chatflow up`, later a Job) writes `intent/<version>/` and `knowledge/<version>/` and then replaces
`current.json` by a rename; a gateway never sees half of a pair.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
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

    def current(self) -> Versions:
        """What the pointer names; ArtefactInvalid when there is none."""
        pointer = self.path / POINTER
        try:
            return msgspec.json.decode(pointer.read_bytes(), type=Versions)
        except OSError as error:
            raise ArtefactInvalid(f"{pointer}: {error.strerror}; build the artefacts first") from error
        except msgspec.MsgspecError as error:
            raise ArtefactInvalid(f"{pointer}: {error}; build the artefacts again") from error

    def load(self, versions: Versions) -> Artefacts:
        """A pair, checked; ArtefactInvalid names what is damaged."""
        index = KnowledgeIndex.load(self.path / "knowledge" / versions.knowledge)
        intent = None
        if versions.intent is not None:
            try:
                intent = IntentModel.load(self.path / "intent" / versions.intent)
            except (IntentError, OSError) as error:
                raise ArtefactInvalid(str(error)) from error
        return Artefacts(versions, index, intent)


async def follow(folder: ArtefactFolder, loaded: Versions, swap: Callable[[Artefacts], None]) -> None:
    """Load whatever the pointer names next and hand it to `swap`, until cancelled. A pair that cannot be loaded is
    logged once and passed over; the one in use stays."""
    seen = loaded
    while True:
        await asyncio.sleep(POLL_S)
        try:
            named = await asyncio.to_thread(folder.current)
            if named == seen:
                continue
            seen = named
            swap(await asyncio.to_thread(folder.load, named))
        except ArtefactInvalid as error:
            log.error("artefacts_refused", reason=str(error))
        else:
            log.info("artefacts_swapped", intent=named.intent, knowledge=named.knowledge)
