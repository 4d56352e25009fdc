"""The files that a flow's sources name, read from its objects and volumes; and the intent examples in them.

Called by `references` (which reports what is missing), `build` and `evaluate`.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from chatflow_api.manifest_source import SourceInvalid, read_documents
from chatflow_api.v1alpha1 import Source

from chatflow_cli.local.objects import Data


@dataclass(frozen=True, slots=True)
class ContentFile:
    """One file: `path` as messages and citations name it (OBJECT/KEY, or a path below the volume)."""

    path: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Example:
    """A labelled question. `source` is the file it stands in, for messages."""

    text: str
    intent: str
    source: str = ""


class ContentMissing(Exception):
    """A source names something that is not there; the message says what, `remedy` what to do.

    `is_elsewhere`: it may well exist on a cluster, and nothing beside the manifest speaks against it.
    """

    def __init__(self, what: str, remedy: str, *, is_elsewhere: bool = False) -> None:
        super().__init__(what)
        self.remedy = remedy
        self.is_elsewhere = is_elsewhere


def source_files(source: Source, configmaps: Mapping[str, Data], volumes: Mapping[str, Path]) -> list[ContentFile]:
    """The files of one source, in order of their names; ContentMissing when one is not there."""
    if source.config_map is not None:
        data = found_object("ConfigMap", source.config_map.name, configmaps)
        keys = source.config_map.keys or sorted(data)
        for key in keys:
            if key not in data:
                known = ", ".join(sorted(data)) or "none"
                raise ContentMissing(f"ConfigMap {source.config_map.name} has no key {key}", f"its keys: {known}")
        return [ContentFile(f"{source.config_map.name}/{key}", data[key]) for key in keys]
    claim = source.persistent_volume_claim
    assert claim is not None, "a source has exactly one kind"  # noqa: S101  The type guarantees it.
    if claim.claim_name not in volumes:
        remedy = f"give its folder here: --volume {claim.claim_name}=FOLDER"
        raise ContentMissing(f"the volume {claim.claim_name} is not on this machine", remedy, is_elsewhere=True)
    root = volumes[claim.claim_name]
    place = (root / claim.path).resolve()
    if not place.exists() or not place.is_relative_to(root.resolve()):
        raise ContentMissing(f"{root / claim.path} does not exist", "create it, or correct path or --volume")
    files = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
    return [
        ContentFile(f"{claim.claim_name}/{file.relative_to(root.resolve()).as_posix()}", file.read_bytes())
        for file in files
        if not any(part.startswith(".") for part in file.relative_to(place).parts)
    ]


def found_object(kind: str, name: str, objects: Mapping[str, Data]) -> Data:
    """The data of a ConfigMap or Secret by name; ContentMissing when nothing beside the manifest defines it."""
    if name in objects:
        return objects[name]
    known = f"defined here: {', '.join(sorted(objects))}" if objects else "nothing here defines one"
    remedy = f"add it to the manifest's file or to kustomization.yaml beside it ({known})"
    raise ContentMissing(f"{kind} {name} is not found", remedy, is_elsewhere=not objects)


def read_examples(files: Sequence[ContentFile], problems: list[str]) -> Iterator[Example]:
    """The examples in files of the form YAML (intent: [texts]), JSONL or CSV (text, intent).

    What cannot be read goes to `problems`, one line each.
    """
    readers: dict[str, Callable[[str, str, list[str]], Iterator[Example]]] = {
        ".yaml": _from_yaml,
        ".yml": _from_yaml,
        ".jsonl": _from_jsonl,
        ".csv": _from_csv,
    }
    for file in files:
        read = readers.get(PurePosixPath(file.path).suffix.lower())
        if read is None:
            problems.append(f"{file.path}: examples are read from .yaml, .jsonl and .csv; rename it or leave it out")
            continue
        try:
            text = file.content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            problems.append(f"{file.path}: byte {error.start} is not UTF-8; save the file as UTF-8")
            continue
        yield from read(text, file.path, problems)


def _from_yaml(text: str, path: str, problems: list[str]) -> Iterator[Example]:
    try:
        documents = read_documents(text)
    except SourceInvalid as error:
        line = f":{error.place.line}" if error.place else ""
        problems.append(f"{path}{line}: {error.what}; {error.remedy}")
        return
    for document in documents:
        for fault in document.faults:
            problems.append(f"{path}:{fault.place.line if fault.place else 1}: {fault.what}; {fault.remedy}")
        if not isinstance(document.data, dict):
            problems.append(f"{path}: it must map intents to lists of texts; write 'intent:' and '- text' below it")
            continue
        for intent, texts in document.data.items():
            place = document.place((intent,))
            where = f"{path}:{place.line if place else 1}"
            if isinstance(intent, str):
                yield from _listed(intent, texts, where, problems)


def _listed(intent: str, texts: Any, where: str, problems: list[str]) -> Iterator[Example]:
    if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
        problems.append(
            f"{where}: {intent} must be a list of texts; put numbers and empty texts in quotes, or remove them"
        )
        return
    for text in texts:
        yield Example(text, intent, where)


def _from_jsonl(text: str, path: str, problems: list[str]) -> Iterator[Example]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            problems.append(f"{path}:{number}: no JSON: {error.msg} at column {error.colno}; write one object a line")
            continue
        yield from _row(row if isinstance(row, dict) else {}, f"{path}:{number}", problems)


def _from_csv(text: str, path: str, problems: list[str]) -> Iterator[Example]:
    reader = csv.DictReader(io.StringIO(text))
    for row in reader:
        yield from _row(row, f"{path}:{reader.line_num}", problems)


def _row(row: Mapping[str, Any], where: str, problems: list[str]) -> Iterator[Example]:
    text, intent = row.get("text"), row.get("intent")
    if isinstance(text, str) and text.strip() and isinstance(intent, str) and intent.strip():
        yield Example(text, intent.strip(), where)
    else:
        problems.append(f"{where}: the columns text and intent are needed, both with a value; add them")
