"""Reading a manifest: YAML text in, a ChatFlow or every problem with its line, value and remedy out.

Called by every `chatflow` command that takes a manifest. Pure: it opens no file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from chatflow_api import v1alpha1 as api
from chatflow_api.field_errors import close_names, explain
from chatflow_api.manifest_source import Document, Path, SourceInvalid, read_documents

_SHOWN = 60
"""Longest value shown in a message, in characters."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a manifest."""

    filename: str
    path: str
    """The field, for example spec.models.intent.confidence; empty when it is not about one."""
    what: str
    remedy: str
    line: int | None = None
    column: int | None = None
    value: str | None = None
    """The value as written, shortened; None when there is none."""

    def __str__(self) -> str:
        place = self.filename if self.line is None else f"{self.filename}:{self.line}"
        subject = f"{self.path}: " if self.path else ""
        value = f"{self.value}: " if self.value is not None else ""
        return f"{place}: {subject}{value}{self.what}; {self.remedy}"


class ManifestInvalid(ValueError):
    """A manifest that cannot be used, with all that is wrong with it."""

    code = "manifest_invalid"

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Manifest:
    """A validated flow, the other documents of its file, and the way back to its lines."""

    flow: api.ChatFlow
    documents: tuple[Mapping[str, Any], ...]
    filename: str
    _document: Document = field(repr=False, compare=False)

    def problem(self, path: Path, what: str, remedy: str) -> Problem:
        """A problem found later, for example a ConfigMap that is not there, with the line of `path`."""
        return _problem(self.filename, self._document, path, what, remedy)

    def line(self, path: Path) -> int | None:
        """The line of `path`, or of the nearest part of it that is written down."""
        place = self._document.place(path)
        return place.line if place else None


def path_text(path: Path) -> str:
    """`spec.dialogue.slots[0].name` for a path."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def read_manifest(text: str, filename: str, overrides: Mapping[str, str] | None = None) -> Manifest:
    """The one ChatFlow of a YAML text. `overrides` sets fields below spec (path -> YAML value), as `--set` does.

    Raises ManifestInvalid with every problem; `filename` only appears in them.
    """
    try:
        documents = read_documents(text.removeprefix("\ufeff"))
    except SourceInvalid as error:
        raise ManifestInvalid([_source_problem(filename, error)]) from error
    document = _only_flow(documents, filename)
    problems = [_source_problem(filename, fault) for fault in document.faults]
    data = document.data
    for path, value in (overrides or {}).items():
        data = _overridden(data, path, value)
    problems += _envelope_problems(document, filename)
    flow, found = _validated(data, document, filename)
    problems += found
    if flow is None or problems:
        raise ManifestInvalid(sorted(problems, key=lambda problem: (problem.line or 0, problem.path)))
    others = tuple(other.data for other in documents if other is not document and isinstance(other.data, dict))
    return Manifest(flow, others, filename, document)


def _only_flow(documents: Sequence[Document], filename: str) -> Document:
    flows = [document for document in documents if _is_meant_as_flow(document.data)]
    if len(flows) == 1:
        return flows[0]
    if len(flows) > 1:
        place = flows[1].place(())
        what = f"the file holds {len(flows)} ChatFlows"
        raise ManifestInvalid([Problem(filename, "", what, "keep one a file", line=place.line if place else None)])
    kinds = sorted({str(doc.data.get("kind")) for doc in documents if isinstance(doc.data, dict)})
    what = f"no ChatFlow stands in it (found: {', '.join(kinds)})" if kinds else "no ChatFlow stands in it"
    remedy = f"begin with apiVersion: {api.API_VERSION} and kind: {api.KIND}"
    raise ManifestInvalid([Problem(filename, "", what, remedy)])


def _is_meant_as_flow(data: Any) -> bool:
    if not isinstance(data, dict):
        return False
    kind = str(data.get("kind", ""))
    if kind.lower() == api.KIND.lower() or str(data.get("apiVersion", "")).split("/")[0] == api.GROUP:
        return True
    is_other = "kind" in data and "apiVersion" in data
    return not is_other and ("spec" in data or bool(close_names(kind, [api.KIND])))


def _envelope_problems(document: Document, filename: str) -> Iterator[Problem]:
    for name, wanted in (("apiVersion", api.API_VERSION), ("kind", api.KIND)):
        given = document.data.get(name)
        if given == wanted:
            continue
        what = "it is missing" if given is None else f"it must be {wanted}"
        yield _problem(filename, document, (name,), what, f"write {name}: {wanted}", has_value=given is not None)


def _validated(data: Any, document: Document, filename: str) -> tuple[api.ChatFlow | None, list[Problem]]:
    envelope = {**data, "apiVersion": api.API_VERSION, "kind": api.KIND}
    try:
        # JSON is what the API server will see; strict reading takes no text for a number, as it does not either.
        source = json.dumps(_with_text_keys(envelope))
        return api.ChatFlow.model_validate_json(source, strict=True, by_alias=True, by_name=False), []
    except ValidationError as error:
        details = error.errors(include_url=False)
        return None, [problem for detail in details for problem in _problems_of(detail, document, filename)]


def _with_text_keys(value: Any) -> Any:
    """Keys as JSON has them; those that are no text have been reported, and are left out."""
    if isinstance(value, dict):
        return {key: _with_text_keys(inner) for key, inner in value.items() if isinstance(key, str)}
    if isinstance(value, list):
        return [_with_text_keys(inner) for inner in value]
    return value


def _problems_of(detail: ErrorDetails, document: Document, filename: str) -> Iterator[Problem]:
    path = tuple(part for part in detail["loc"] if part != "[key]")
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, api.RuleBroken):
        for finding in cause.findings:
            what, _, remedy = finding.message.partition("; ")
            yield _problem(filename, document, (*path, *finding.at), what, remedy)
        return
    what, remedy, has_value = explain(detail, path)
    yield _problem(filename, document, path, what, remedy, has_value=has_value)


def _problem(
    filename: str, document: Document, path: Path, what: str, remedy: str, *, has_value: bool = False
) -> Problem:
    place = document.place(path)
    exact = document.places.get(path)
    value = _shown(exact.text) if has_value and exact is not None else None
    return Problem(
        filename,
        path_text(path),
        what,
        remedy,
        line=place.line if place else None,
        column=place.column if place else None,
        value=value,
    )


def _source_problem(filename: str, error: SourceInvalid) -> Problem:
    place = error.place
    what = f"{error.what} (column {place.column})" if place and not error.path else error.what
    return Problem(
        filename,
        path_text(error.path),
        what,
        error.remedy,
        line=place.line if place else None,
        column=place.column if place else None,
    )


def _shown(text: str | None) -> str | None:
    if text is None:
        return None
    line = " ".join(text.split())
    return line if 0 < len(line) <= _SHOWN else f"{line[:_SHOWN]}…" if line else '""'


def _overridden(data: Any, path: str, value: str) -> Any:
    """The data with one field below spec replaced, and every mapping on the way copied or made."""
    keys = path.split(".") if path.startswith("spec.") else ["spec", *path.split(".")]
    copy: dict[str, Any] = dict(data)
    node = copy
    for key in keys[:-1]:
        below = node.get(key)
        node[key] = dict(below) if isinstance(below, dict) else {}
        node = node[key]
    node[keys[-1]] = yaml.safe_load(value)
    return copy
