"""The folder of a flow's artefacts: what was built from which content, and which pair is in force.

    intent/VERSION/  knowledge/VERSION/     the artefacts
    built/FINGERPRINT.json                  the pair that a build request led to
    current.json                            the pair in force; gateways follow it
    lock                                    held by the build Job that writes; one at a time

`build` notes what it built, `artefacts` and the build Job put it in force. Several flows may share the first three
folders. Everything is written under a name of its own and then renamed, so that builds at the same time do no harm.
"""

from __future__ import annotations

import errno
import fcntl
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from chatflow_cli.local.data_folder import write_whole

_KINDS = ("intent", "knowledge")
_SHARED = (*_KINDS, "built")
POINTER = "current.json"
_LEFT_OVER_S = 24 * 3600.0
"""What is still being written after this long belongs to a build that was killed."""
_KEPT_VERSIONS = 4
"""Artefacts of a kind that stay, so that going back to an earlier content needs no training."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The versions of an intent model (None for a flow without intents) and of a knowledge index."""

    intent: str | None
    knowledge: str


class ArtefactStore:
    """One flow's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def make(self, cache: Path | None = None) -> None:
        """Make the folders. `cache`: another flow's folder, to find and leave artefacts in; what is in force is its own
        matter for each."""
        self.path.mkdir(parents=True, exist_ok=True)
        for name in _SHARED:
            if cache is None:
                (self.path / name).mkdir(exist_ok=True)
            else:
                (cache / name).mkdir(parents=True, exist_ok=True)
                (self.path / name).symlink_to((cache / name).resolve(), target_is_directory=True)

    @contextmanager
    def held(self, tell: Callable[[str], None]) -> Iterator[None]:
        """Keep other build Jobs out, once those before are through; `tell` is given a line while there is one. A volume
        that knows no locks is used without."""
        with (self.path / "lock").open("w") as lock:
            try:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    tell("waiting for another build of this flow to end")
                    fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS):
                    raise
            yield

    def in_force(self) -> Pair | None:
        """The pair that gateways use; None when there is none, or it is gone or damaged."""
        return self._pair(self.path / POINTER)

    def built(self, fingerprint: str) -> Pair | None:
        """What a request with this fingerprint led to; None when it was never built, or is gone or damaged."""
        return self._pair(self.path / "built" / f"{fingerprint}.json")

    def _pair(self, file: Path) -> Pair | None:
        with suppress(OSError, ValueError, TypeError):
            pair = Pair(**json.loads(file.read_bytes()))
            if self.has_index(pair.knowledge) and (pair.intent is None or self.has_model(pair.intent)):
                return pair
        return None

    def model_in_force(self) -> str | None:
        """The intent model that gateways use; None when there is none, or it is gone or damaged. The index beside it
        may be."""
        with suppress(OSError, ValueError, TypeError):
            intent = Pair(**json.loads((self.path / POINTER).read_bytes())).intent
            return intent if intent is not None and self.has_model(intent) else None
        return None

    def has_model(self, version: str) -> bool:
        """Whether an intent model is there, whole."""
        # These readers bring numpy; who finds nothing built does not wait for it.
        from chatflow_models.intent.artefact import read_artefact
        from chatflow_models.intent.errors import IntentError

        try:
            read_artefact(self.path / "intent" / version)
        except (IntentError, OSError, ValueError):
            return False
        return True

    def room_for_model(self, version: str) -> Path:
        """Where a model is to be written. Files of nothing that lie there are removed; a damaged model stays, to be
        replaced by the new one in one step."""
        folder = self.path / "intent" / version
        if not (folder / "manifest.json").is_file():
            shutil.rmtree(folder, ignore_errors=True)
        return folder

    def has_index(self, version: str) -> bool:
        """Whether a knowledge index is there, whole."""
        from chatflow_runtime.adapters.knowledge.storage import read_manifest
        from chatflow_runtime.errors import ArtefactInvalid

        try:
            read_manifest(self.path / "knowledge" / version)
        except (ArtefactInvalid, OSError, ValueError):
            return False
        return True

    def note(self, fingerprint: str, pair: Pair) -> None:
        """Remember what a request led to."""
        write_whole(self.path / "built" / f"{fingerprint}.json", json.dumps(asdict(pair)))

    def put_in_force(self, pair: Pair) -> None:
        """Let gateways swap to these artefacts, and remove those of long ago."""
        write_whole(self.path / POINTER, json.dumps(asdict(pair)))
        self._remove_old(pair)

    def _remove_old(self, pair: Pair) -> None:
        for kind, version in zip(_KINDS, (pair.intent, pair.knowledge), strict=True):
            folder = self.path / kind
            if folder.is_symlink():
                # A cache belongs to the flow that shares it.
                continue
            for left in folder.glob(".*"):
                with suppress(OSError):
                    if time.time() - left.stat().st_mtime > _LEFT_OVER_S:
                        shutil.rmtree(left) if left.is_dir() else left.unlink()
            others = [path for path in folder.glob("[!.]*") if path.is_dir() and path.name != version]
            for old in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)[_KEPT_VERSIONS - 1 :]:
                shutil.rmtree(old, ignore_errors=True)
