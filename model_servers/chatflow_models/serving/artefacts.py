"""Where the server's model lies: an artefact, a folder with one in it, or a flow's own folder of artefacts, whose
`current.json` says which one is in force."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

import msgspec

from chatflow_models.intent import ArtefactError, IntentError, IntentModel
from chatflow_models.intent.artefact import MANIFEST
from chatflow_models.serving.service import IntentService

log = logging.getLogger("chatflow.serving")

POINTER = "current.json"
POLL_S = 0.5
FOLLOW_S = 5.0


class _InForce(msgspec.Struct):
    intent: str | None = None


def load_model(folder: Path, wait_s: float = 0.0) -> IntentModel:
    """The model in force in a folder. One that is not there yet is waited for. ArtefactError says what is missing."""
    end_s = time.monotonic() + wait_s
    while (found := _artefact(folder)) is None:
        if time.monotonic() >= end_s:
            raise ArtefactError(f"{folder} holds no intent artefact; name a folder with one in storageUri")
        time.sleep(POLL_S)
    return IntentModel.load(found)


async def follow(folder: Path, service: IntentService) -> None:
    """Give the service the model that comes into force, as a training brings it, for as long as this runs. One that
    cannot be used is told of, and the one before stays."""
    said = ""
    while True:
        await asyncio.sleep(FOLLOW_S)
        try:
            version = _in_force(folder)
            if version not in (None, service.version):
                await service.swap(await asyncio.to_thread(IntentModel.load, folder / "intent" / version))
                log.info("model %s (%s) is in force", service.name, service.version)
        except (IntentError, OSError) as error:
            if said != (said := str(error)):
                log.warning("model %s stays %s: %s", service.name, service.version, error)


def _artefact(folder: Path) -> Path | None:
    if (folder / MANIFEST).is_file():
        return folder
    if (folder / POINTER).is_file():
        version = _in_force(folder)
        return None if version is None else folder / "intent" / version
    below = [path.parent for path in folder.glob(f"*/{MANIFEST}")]
    if len(below) > 1:
        raise ArtefactError(f"{folder} holds {len(below)} intent artefacts and no {POINTER}; name one in storageUri")
    return below[0] if below else None


def _in_force(folder: Path) -> str | None:
    """The version that a flow's own folder names; None while it has none, and for any other folder."""
    pointer = folder / POINTER
    if not pointer.is_file():
        return None
    try:
        return msgspec.json.decode(pointer.read_bytes(), type=_InForce).intent
    except msgspec.MsgspecError as error:
        raise ArtefactError(f"{pointer}: {error}; build the artefacts again") from error
