"""Trains the intent model and indexes the knowledge of a flow, each only when what goes into it has changed.

`evaluate` calls `build`; `up` and `ask` run this module as a process of its own: `python -m chatflow_cli.local.build
REQUEST FOLDER`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import msgspec
from chatflow_models.intent import CachingEncoder, Encoder, IntentError, load_encoder
from chatflow_models.training import Example, train
from chatflow_runtime.adapters.knowledge import (
    Knowledge,
    SourceFile,
    SourcesInvalid,
    build_index,
    read_files,
)
from chatflow_runtime.domain.normalisation import normalise
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
    folder = ArtefactStore(path)
    folder.make()
    try:
        knowledge = read_files(SourceFile(file.path, file.content) for file in request.knowledge)
        examples = _examples(request, knowledge)
        # A flow without intents has no encoder at hand when it answers, so its index gets no vectors.
        builder = _Builder(request, path, progress, has_intents=bool(examples))
        pair = Pair(builder.intent(examples) if examples else None, builder.index(knowledge))
    except SourcesInvalid as error:
        raise BuildFailed("\n".join(error.problems)) from error
    except (IntentError, ArtefactInvalid) as error:
        raise BuildFailed(str(error)) from error
    folder.note(request.fingerprint(), pair)
    return pair


def _examples(request: BuildRequest, knowledge: Knowledge) -> list[Example]:
    """The manifest's examples and the pairs' questions, spelt as the gateway spells what users write."""
    listed = [Example(normalise(text), intent) for text, intent, _ in request.examples]
    pairs = [Example(normalise(example.text), example.intent, example.answer) for example in knowledge.examples]
    return listed + pairs


class _Builder:
    """Makes one flow's artefacts. The encoder is loaded once, and only if something has to be made."""

    def __init__(self, request: BuildRequest, folder: Path, progress: Progress, *, has_intents: bool) -> None:
        self._request = request
        self._folder = folder
        self._progress = progress
        self._settings = f"{request.encoder} {request.encoder_path} {request.encoder_state} {request.code}".encode()
        self._has_vectors = has_intents and request.encoder != "none"
        self._encoder = cache(self._loaded)

    def intent(self, examples: Sequence[Example]) -> str:
        """The version of the intent model: a hash of its examples, its encoder and the threshold of its report."""
        rows = msgspec.json.encode([(example.text, example.intent, example.answer) for example in examples])
        version = digest(rows, self._settings, repr(self._request.confidence).encode())
        target = self._folder / "intent" / version
        if target.is_dir():
            return version
        intents = len({example.intent for example in examples})
        self._progress(f"training the intent model: {len(examples)} examples of {intents} intents")
        since_s = time.monotonic()
        report = train(examples, self._encoder(), target, threshold=self._request.confidence)
        figures = report.evaluation
        self._progress(
            f"intent model is trained in {time.monotonic() - since_s:.1f} s; on held-out examples: accuracy"
            f" {figures.accuracy:.1%}, above {report.threshold:g} are {figures.coverage:.1%}, of them right"
            f" {figures.precision:.1%}"
        )
        for warning in report.warnings:
            self._progress(f"note: {warning}")
        return version

    def index(self, knowledge: Knowledge) -> str:
        """The version of the knowledge index, which the index itself computes from its content."""
        entries = msgspec.msgpack.encode(knowledge.entries)
        known = (
            self._folder / "knowledge" / f"by-input-{digest(entries, self._settings, str(self._has_vectors).encode())}"
        )
        if known.is_file() and (self._folder / "knowledge" / known.read_text()).is_dir():
            return known.read_text()
        self._progress(f"indexing the knowledge: {len(knowledge.entries)} entries")
        since_s = time.monotonic()
        encoder = self._encoder() if self._has_vectors else None
        built = build_index(knowledge, encoder, self._folder / "knowledge")
        write_whole(known, built.version)
        self._progress(f"knowledge is indexed in {time.monotonic() - since_s:.1f} s")
        return built.version

    def _loaded(self) -> Encoder:
        path = self._request.encoder_path
        # Training and indexing encode the same questions.
        return CachingEncoder(load_encoder(self._request.encoder, None if path is None else Path(path)))


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
