"""What a manifest refers to: ConfigMaps, Secrets, files, intents. Called by `validate`, and by `up` before it starts.

A reference that nothing here can decide (a ConfigMap that may exist on the cluster) is a remark for `validate` and an
error for `up`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from chatflow_api import v1alpha1 as api
from chatflow_api.manifest_source import Path as FieldPath
from chatflow_api.validation import Manifest

from chatflow_cli.local.content import (
    ContentFile,
    ContentMissing,
    found_object,
    source_files,
)
from chatflow_cli.local.example_files import Example, read_examples
from chatflow_cli.local.objects import Objects


@dataclass
class Findings:
    """What the check found, one line each."""

    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    """What could not be checked here, and what was left out."""


@dataclass
class Content:
    """Everything that training and indexing read."""

    knowledge: list[ContentFile] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    """Inline ones and those of exampleSources; the pairs' own questions are added when knowledge is read."""
    questions: list[str] = field(default_factory=list)
    """The pairs' questions, in the order of their files."""
    is_complete: bool = True
    """False when a source is not on this machine."""


Purpose = Literal["validate", "run"]


class ReferenceCheck:
    """Checks one manifest; afterwards `findings` and `content` hold the result."""

    def __init__(self, manifest: Manifest, objects: Objects, volumes: Mapping[str, Path], purpose: Purpose) -> None:
        self.findings = Findings(problems=list(objects.problems))
        self.content = Content()
        self._manifest = manifest
        self._objects = objects
        self._volumes = volumes
        self._purpose = purpose

    def run(self) -> ReferenceCheck:
        """Check everything."""
        spec = self._manifest.flow.spec
        self.content.knowledge += self._files(spec.knowledge.sources, ("spec", "knowledge", "sources"))
        self._check_examples(spec.models.intent)
        self._check_word_lists(spec.moderation.word_lists)
        for path, secret in api.secret_refs(spec, ("spec",)):
            self._check_key("Secret", secret, path)
        self._check_encoder(spec.models.intent)
        self._check_knowledge()
        return self

    def _files(self, sources: Sequence[api.Source], path: FieldPath) -> Iterator[ContentFile]:
        for index, source in enumerate(sources):
            kind = "configMap" if source.config_map is not None else "persistentVolumeClaim"
            try:
                yield from source_files(source, self._objects.configmaps, self._volumes)
            except ContentMissing as error:
                self.content.is_complete = False
                self._missing(error, (*path, index, kind))

    def _check_examples(self, intent: api.IntentModel) -> None:
        for name, texts in intent.examples.items():
            self.content.examples += [
                Example(text, name, self._place(("spec", "models", "intent", "examples", name, index)))
                for index, text in enumerate(texts)
            ]
        files = list(self._files(intent.example_sources, ("spec", "models", "intent", "exampleSources")))
        self.content.examples += read_examples(files, self.findings.problems, self.findings.remarks)

    def _place(self, path: FieldPath) -> str:
        """File and line of a field. The file's name alone: what is built does not depend on where one stands."""
        return f"{Path(self._manifest.filename).name}:{self._manifest.line(path) or 1}"

    def _check_word_lists(self, lists: Sequence[api.ConfigMapKeyRef]) -> None:
        for index, ref in enumerate(lists):
            self._check_key("ConfigMap", ref, ("spec", "moderation", "wordLists", index))

    def _check_key(
        self, kind: Literal["ConfigMap", "Secret"], ref: api.ConfigMapKeyRef | api.SecretKeyRef, path: FieldPath
    ) -> None:
        objects = self._objects.configmaps if kind == "ConfigMap" else self._objects.secrets
        try:
            data = found_object(kind, ref.name, objects)
            if ref.key not in data:
                raise ContentMissing(f"{kind} {ref.name} has no key {ref.key}", f"its keys: {', '.join(sorted(data))}")
        except ContentMissing as error:
            # Secrets are rarely kept beside a manifest, so their absence there says nothing about the cluster.
            self._missing(error, path, is_elsewhere=kind == "Secret" or error.is_elsewhere)

    def _check_encoder(self, intent: api.IntentModel) -> None:
        if intent.encoder_path is None or self._purpose == "validate":
            return
        folder = Path(self._manifest.filename).parent / intent.encoder_path
        if not (folder / "model.onnx").is_file():
            path = ("spec", "models", "intent", "encoderPath")
            problem = self._manifest.problem(path, f"{folder} holds no model.onnx", "export the encoder there")
            self.findings.problems.append(str(problem))

    def _check_knowledge(self) -> None:
        """The files can be read, and every intent that something names has examples."""
        intents = {example.intent for example in self.content.examples}
        if self.content.knowledge:
            # The readers bring HTML and PDF libraries; a manifest without knowledge does not wait for them.
            from chatflow_runtime.adapters.knowledge.sources import SourceFile, read_files
            from chatflow_runtime.errors import SourcesInvalid

            try:
                knowledge = read_files(SourceFile(file.path, file.content) for file in self.content.knowledge)
                intents |= {example.intent for example in knowledge.examples}
                self.content.questions += [entry.title for entry in knowledge.entries if entry.kind == "pair"]
            except SourcesInvalid as error:
                self.findings.problems += error.problems
                return
        if not self.content.is_complete:
            return
        for index, action in enumerate(self._manifest.flow.spec.dialogue.actions):
            if action.intent not in intents:
                path = ("spec", "dialogue", "actions", index, "intent")
                known = ", ".join(sorted(intents)) or "none"
                what = f"no example teaches the intent {action.intent!r}, so the action never starts"
                problem = self._manifest.problem(path, what, f"add examples of it, or use one of: {known}")
                self.findings.problems.append(str(problem))
        handoff = self._manifest.flow.spec.dialogue.handoff
        if handoff is not None and handoff.intent is not None and handoff.intent not in intents:
            what = f"no example teaches the intent {handoff.intent!r}, so it never leads to a person"
            where = ("spec", "dialogue", "handoff", "intent")
            problem = self._manifest.problem(where, what, "add examples of it, or leave it out")
            self.findings.problems.append(str(problem))

    def _missing(self, error: ContentMissing, path: FieldPath, *, is_elsewhere: bool | None = None) -> None:
        undecided = error.is_elsewhere if is_elsewhere is None else is_elsewhere
        is_remark = undecided and self._purpose == "validate"
        target = self.findings.remarks if is_remark else self.findings.problems
        remedy = "not checked" if is_remark else error.remedy
        target.append(str(self._manifest.problem(path, str(error), remedy)))
