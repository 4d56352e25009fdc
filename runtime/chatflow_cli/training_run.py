"""Takes a flow's examples and further ones through a rehearsed training, and writes what comes of it. Called by
`train`.

The model goes to a folder of its own, and to where `up` looks for it once the further examples stand in the manifest.
What is in force stays in force.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from chatflow_api.v1alpha1 import OUT_OF_SCOPE
from chatflow_models.intent import Encoder, IntentError, IntentModel
from chatflow_models.intent.artefact import MANIFEST, read_artefact, write_artefact
from chatflow_models.training import OnProgress, Rehearsed, Settings, rehearse
from chatflow_models.training.pages import figures, html_page, markdown
from chatflow_runtime.adapters.knowledge import SourceFile, SourcesInvalid, read_files

from chatflow_cli.errors import CommandFailed, ManifestUnusable
from chatflow_cli.local.artefact_store import POINTER, ArtefactStore
from chatflow_cli.local.build import encoder_of
from chatflow_cli.local.build_request import BuildRequest
from chatflow_cli.local.content import ContentFile
from chatflow_cli.local.data_folder import DataFolder
from chatflow_cli.local.example_files import Example, read_examples
from chatflow_cli.local.preparation import Options, prepare
from chatflow_cli.local.training_set import TrainingSet

REPORT_PAGE = "report.html"


@dataclass(frozen=True)
class Course:
    """What to train from and how, beside the manifest."""

    options: Options
    further: Sequence[Path]
    """Files with further examples."""
    current: Path | None
    """An artefact to compare with; None for the one in force."""
    is_compared: bool
    held_out: float
    seed: int
    out: Path | None


@dataclass(frozen=True)
class Trained:
    """What came of it, and where it lies."""

    rehearsed: Rehearsed
    folder: Path


def run(course: Course, tell: OnProgress) -> Trained:
    """Train and write; ManifestUnusable for content, CommandFailed for folders that cannot be used."""
    prepared = prepare(course.options)
    further, remarks = _further(course.further)
    known = {example.intent for example in prepared.content.examples}
    prepared.content.examples.extend(further)
    request = BuildRequest.of(prepared.config, prepared.content)
    data = DataFolder.below(course.options.data or Path(".chatflow"), prepared.flow.metadata)
    store, out = ArtefactStore(data.artefacts), course.out or data.training
    current_folder = _current(course, store)
    _keep_away(out, store, current_folder)
    try:
        knowledge = read_files(SourceFile(file.path, file.content) for file in request.knowledge)
        known |= {example.intent for example in knowledge.examples}
        wanted = TrainingSet.of(request, knowledge)
        encoder = encoder_of(request)
        current = None if current_folder is None else _loaded(current_folder, encoder)
        settings = Settings(request.confidence, course.held_out, course.seed)
        rehearsed = rehearse(wanted.examples, encoder, settings, current, tell)
        remarks = (*remarks, *_strange_labels(further, known))
        trained = Trained(replace(rehearsed, warnings=(*remarks, *rehearsed.warnings)), out)
        _write(trained, out, store, wanted.version)
    except SourcesInvalid as error:
        raise ManifestUnusable("\n".join(error.problems)) from error
    except IntentError as error:
        raise ManifestUnusable(str(error)) from error
    except OSError as error:
        raise CommandFailed(f"{error.filename or out}: {error.strerror}; name another folder with --out") from error
    return trained


def _further(files: Sequence[Path]) -> tuple[list[Example], tuple[str, ...]]:
    """The examples of further files, and what was left out of them."""
    problems: list[str] = []
    remarks: list[str] = []
    contents = []
    for file in files:
        try:
            contents.append(ContentFile(str(file), file.read_bytes()))
        except OSError as error:
            problems.append(f"{file}: {error.strerror}; name a file with --examples")
    found = list(read_examples(contents, problems, remarks))
    if problems:
        raise ManifestUnusable("\n".join(problems))
    return found, tuple(remarks)


def _strange_labels(further: Sequence[Example], known: set[str]) -> list[str]:
    """A line for each label that no example of the manifest has, with the one that may have been meant."""
    first = {example.intent: example.source for example in reversed(further)}
    lines = []
    for intent in sorted(first.keys() - known - {OUT_OF_SCOPE}):
        by_fold = {name.casefold(): name for name in (*known, OUT_OF_SCOPE)}
        close = get_close_matches(intent.casefold(), by_fold, n=1)
        remedy = f"did you mean {by_fold[close[0]]!r}?" if close else "it is a new intent"
        lines.append(f"{first[intent]}: no example of the manifest has the label {intent!r}; {remedy}")
    return lines


def _current(course: Course, store: ArtefactStore) -> Path | None:
    if not course.is_compared:
        return None
    if course.current is not None:
        return course.current
    version = store.model_in_force()
    return None if version is None else store.path / "intent" / version


def _keep_away(out: Path, store: ArtefactStore, current: Path | None) -> None:
    """CommandFailed where the output would replace a model that may be in use."""
    place = out.resolve()
    in_use = [parent for parent in place.parents if (parent / POINTER).is_file()]
    if in_use or place.is_relative_to(store.path.resolve()) or (current is not None and place == current.resolve()):
        raise CommandFailed(f"--out {out}: a model that may be in use lies there; name another folder")
    if out.exists() and not (out / MANIFEST).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise CommandFailed(f"--out {out}: it holds something else than a model; name another folder, or empty it")


def _loaded(folder: Path, encoder: Encoder) -> IntentModel:
    """The current model, with the encoder at hand where it is the same."""
    try:
        stored = read_artefact(folder)
        is_shared = (stored.encoder, stored.encoder_path) == (encoder.name, str(encoder.path) if encoder.path else None)
        return IntentModel.load(folder, encoder if is_shared else None)
    except IntentError as error:
        raise ManifestUnusable(f"the current model: {error}; or name another with --current, or none") from error


def _write(trained: Trained, out: Path, store: ArtefactStore, version: str) -> None:
    rehearsed = trained.rehearsed
    stored, texts = rehearsed.fitted.stored, {REPORT_PAGE: html_page(rehearsed)}
    write_artefact(out, stored, figures(rehearsed), markdown(rehearsed), texts)
    store.make()
    if not store.has_model(version):
        write_artefact(store.room_for_model(version), stored, figures(rehearsed), markdown(rehearsed), texts)
