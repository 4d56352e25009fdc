"""Trains the intent model and indexes the knowledge of a flow, each only when what goes into it has changed.

`evaluate` and the build Job call it; `up` and `ask` run this module as a process of its own: `python -m
chatflow_cli.local.build REQUEST FOLDER`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import msgspec
from chatflow_models.intent import CachingEncoder, Encoder, IntentError, load_encoder
from chatflow_models.intent.artefact import read_artefact
from chatflow_runtime.adapters.knowledge import (
    SourceFile,
    SourcesInvalid,
    build_index,
    read_files,
)
from chatflow_runtime.errors import ArtefactInvalid

from chatflow_cli.local.artefact_store import ArtefactStore, Pair
from chatflow_cli.local.build_request import BuildRequest, digest
from chatflow_cli.local.data_folder import write_whole

Progress = Callable[[str], None]


class BuildFailed(Exception):
    """The content cannot be used; the message has one line a problem."""


def build(request: BuildRequest, path: Path, progress: Progress) -> Pair:
    """The artefacts that fit the request, made where they are not there yet.

    Nothing is put in force, so a trial may share the folder with a running flow. BuildFailed when the content cannot be
    used.
    """
    return Build(request, path, progress).whole()


class Build:
    """One flow's artefacts in the making. The knowledge is read once; the encoder is loaded once, and only if something
    has to be made. Every method raises BuildFailed when the content cannot be used."""

    def __init__(self, request: BuildRequest, path: Path, progress: Progress) -> None:
        self._request = request
        self._folder = path
        self._progress = progress
        self._settings = request.settings
        self._encoder = cache(self._loaded)
        self._store = ArtefactStore(path)
        self._store.make()
        with _told():
            self._knowledge = read_files(SourceFile(file.path, file.content) for file in request.knowledge)
        self._has_intents = bool(request.examples or self._knowledge.examples)

    def first(self, model: str | None) -> Pair | None:
        """What can be in force before the intent model is trained: the knowledge, with the intent model that is in
        force. None where that model has another encoder and cannot search the new index, which has to wait."""
        # A flow without intents has no encoder at hand when it answers, so its index gets no vectors.
        if not self._has_intents or model is None:
            return Pair(None, self._index(has_vectors=False))
        if not self._is_of_same_encoder(model):
            return None
        return Pair(model, self._index(has_vectors=True))

    def whole(self) -> Pair:
        """The intent model and the index."""
        intent = self._intent() if self._has_intents else None
        pair = Pair(intent, self._index(has_vectors=self._has_intents))
        self._store.note(self._request.fingerprint(), pair)
        return pair

    def _intent(self) -> str:
        """The version of the intent model: a hash of its examples, its encoder and the threshold of its report."""
        # Training brings libraries that take seconds to load.
        from chatflow_models.training import train

        from chatflow_cli.local.training_set import TrainingSet

        wanted = TrainingSet.of(self._request, self._knowledge)
        if self._store.has_model(wanted.version):
            return wanted.version
        examples, target = wanted.examples, self._store.room_for_model(wanted.version)
        intents = len({example.intent for example in examples})
        self._progress(f"training the intent model: {len(examples)} examples of {intents} intents")
        since_s = time.monotonic()
        with _told():
            report = train(examples, self._encoder(), target, threshold=self._request.confidence)
        figures = report.evaluation
        self._progress(
            f"intent model is trained in {time.monotonic() - since_s:.1f} s; on held-out examples: accuracy"
            f" {figures.accuracy:.1%}, above {report.threshold:g} are {figures.coverage:.1%}, of them right"
            f" {figures.precision:.1%}"
        )
        for warning in report.warnings:
            self._progress(f"note: {warning}")
        return wanted.version

    def _index(self, *, has_vectors: bool) -> str:
        """The version of the knowledge index, which the index itself computes from its content."""
        has_vectors = has_vectors and self._request.encoder != "none"
        entries = msgspec.msgpack.encode(self._knowledge.entries)
        known = self._folder / "knowledge" / f"by-input-{digest(entries, self._settings, str(has_vectors).encode())}"
        version = _noted(known)
        if version is not None and self._store.has_index(version):
            return version
        self._progress(f"indexing the knowledge: {len(self._knowledge.entries)} entries")
        since_s = time.monotonic()
        with _told():
            encoder = self._encoder() if has_vectors else None
            built = build_index(self._knowledge, encoder, self._folder / "knowledge")
        write_whole(known, built.version)
        self._progress(f"knowledge is indexed in {time.monotonic() - since_s:.1f} s")
        return built.version

    def _is_of_same_encoder(self, version: str) -> bool:
        try:
            stored = read_artefact(self._folder / "intent" / version)
        except (IntentError, OSError):
            return False
        return (stored.encoder, stored.encoder_path) == (self._request.encoder, self._request.encoder_path)

    def _loaded(self) -> Encoder:
        return encoder_of(self._request)


def encoder_of(request: BuildRequest) -> Encoder:
    """The encoder that a request names; it remembers vectors, since training and indexing encode the same questions."""
    path = request.encoder_path
    return CachingEncoder(load_encoder(request.encoder, None if path is None else Path(path)))


def _noted(file: Path) -> str | None:
    """The version that a file names; None where there is none, or it cannot be read."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except SourcesInvalid as error:
        raise BuildFailed("\n".join(error.problems)) from error
    except (IntentError, ArtefactInvalid) as error:
        raise BuildFailed(str(error)) from error


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    """Build what a request file asks for; 1 when it cannot be done."""
    request = BuildRequest.decode(Path(sys.argv[1]).read_bytes())
    folder = Path(sys.argv[2])
    try:
        build(request, folder, _say)
    except BuildFailed as error:
        _say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
