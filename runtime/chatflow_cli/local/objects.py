"""ConfigMaps and Secrets of a flow, from the files beside it: the manifest's other documents and kustomization.yaml.

Called by `validate`, `up`, `ask` and `evaluate`. On a cluster the same files reach the flow by `kubectl apply -k`.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chatflow_api.manifest_source import SourceInvalid, read_documents

KUSTOMIZATIONS = ("kustomization.yaml", "kustomization.yml", "Kustomization")
_KEY = re.compile(r"[-._a-zA-Z0-9]+")

Data = dict[str, bytes]
"""The files of one ConfigMap or Secret by key."""
Document = Mapping[str, Any]
"""A Kubernetes manifest."""


@dataclass(frozen=True)
class Objects:
    """What was found. `files` are all files that were read, for watching."""

    configmaps: dict[str, Data] = field(default_factory=dict)
    secrets: dict[str, Data] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What is wrong with the files, one line each: file, value, remedy."""


def kustomization_of(folder: Path) -> Path | None:
    """The kustomization file of a folder."""
    return next((folder / name for name in KUSTOMIZATIONS if (folder / name).is_file()), None)


def read_objects(documents: Sequence[Document], manifest: Path | None) -> Objects:
    """The objects in `documents` and in the kustomization beside `manifest` (None for standard input)."""
    found = Objects()
    reader = _Reader(found, manifest)
    for document in documents:
        reader.take(document, str(manifest or "standard input"))
    if manifest is not None and (kustomization := kustomization_of(manifest.parent)) is not None:
        reader.kustomization(kustomization)
    return found


class _Reader:
    """Collects objects, and problems instead of stopping at the first."""

    def __init__(self, found: Objects, manifest: Path | None) -> None:
        self._found = found
        self._visited = set() if manifest is None else {manifest.resolve()}

    def take(self, document: Any, where: str) -> None:
        """One Kubernetes document; everything but ConfigMaps and Secrets is left to the cluster."""
        if not isinstance(document, dict):
            return
        kind, name = document.get("kind"), str((document.get("metadata") or {}).get("name", ""))
        if kind == "ConfigMap":
            data = {**_texts(document.get("data")), **self._decoded(document.get("binaryData"), where, name)}
            self._keep(self._found.configmaps, name, data, where)
        elif kind == "Secret":
            data = {**self._decoded(document.get("data"), where, name), **_texts(document.get("stringData"))}
            self._keep(self._found.secrets, name, data, where)

    def kustomization(self, file: Path) -> None:
        """Everything that one kustomization file brings; those that it names as resources included."""
        if file.resolve() in self._visited:
            return
        documents = self._documents(file)
        if not documents or not isinstance(documents[0], dict):
            return
        content = documents[0]
        for resource in _list(content.get("resources")):
            self._resource(file, str(resource))
        for field_name, target in (
            ("configMapGenerator", self._found.configmaps),
            ("secretGenerator", self._found.secrets),
        ):
            for generator in _list(content.get(field_name)):
                name = str(generator.get("name", ""))
                where = f"{file}: {field_name} {name}"
                self._keep(target, name, dict(self._generated(generator, file.parent, where)), where)

    def _resource(self, kustomization: Path, resource: str) -> None:
        if "://" in resource or resource.startswith("github.com/"):
            return
        path = kustomization.parent / resource
        inner = kustomization_of(path)
        if inner is not None:
            self.kustomization(inner)
        elif path.is_file():
            if path.resolve() not in self._visited:
                for document in self._documents(path):
                    self.take(document, str(path))
        else:
            self._problem(f"{kustomization}: resource {resource} does not exist; create it or remove the line")

    def _documents(self, file: Path) -> list[Any]:
        self._visited.add(file.resolve())
        self._found.files.append(file)
        try:
            return [document.data for document in read_documents(file.read_text(encoding="utf-8"))]
        except SourceInvalid as error:
            line = f":{error.place.line}" if error.place else ""
            self._problem(f"{file}{line}: {error.what}; {error.remedy}")
        except (OSError, UnicodeDecodeError) as error:
            self._problem(f"{file}: cannot be read ({error}); save it as UTF-8")
        return []

    def _generated(self, generator: Mapping[str, Any], folder: Path, where: str) -> Iterator[tuple[str, bytes]]:
        for entry in _list(generator.get("files")):
            key, separator, name = str(entry).partition("=")
            path = folder / (name if separator else key)
            content = self._content(path, where)
            if content is not None:
                yield (key if separator else path.name), content
        for entry in _list(generator.get("literals")):
            key, _, value = str(entry).partition("=")
            yield key, _unquoted(value).encode()
        for name in [*_list(generator.get("envs")), *([generator["env"]] if "env" in generator else [])]:
            content = self._content(folder / str(name), where)
            yield from _env_lines((content or b"").decode("utf-8", "replace"))

    def _content(self, path: Path, where: str) -> bytes | None:
        try:
            content = path.read_bytes()
        except OSError as error:
            reason = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
            self._problem(f"{where}: {path} {reason}; create it or remove the line")
            return None
        self._found.files.append(path)
        return content

    def _decoded(self, data: Any, where: str, name: str) -> Data:
        decoded: Data = {}
        for key, value in (data or {}).items():
            try:
                decoded[str(key)] = base64.b64decode("".join(str(value).split()), validate=True)
            except binascii.Error:
                self._problem(f"{where}: {name}: the value of {key} is no base64; encode it, or write it as stringData")
        return decoded

    def _keep(self, target: dict[str, Data], name: str, data: Data, where: str) -> None:
        wrong = [key for key in data if not _KEY.fullmatch(key) or key in (".", "..")]
        if not _KEY.fullmatch(name) or name in (".", ".."):
            self._problem(f"{where}: {name!r} is no name for an object; give metadata.name")
        elif wrong:
            self._problem(f"{where}: {name}: {wrong[0]!r} is no key; use letters, digits, '-', '_' and '.'")
        elif name in target:
            self._problem(f"{where}: {name} is defined a second time; keep one")
        else:
            target[name] = data

    def _problem(self, line: str) -> None:
        self._found.problems.append(line)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _texts(data: Any) -> Data:
    return {str(key): str(value).encode() for key, value in (data or {}).items()}


def _unquoted(value: str) -> str:
    is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return value[1:-1] if is_quoted else value


def _env_lines(text: str) -> Iterator[tuple[str, bytes]]:
    """`KEY=value` lines as kustomize reads them: `#` comments, and a bare KEY takes its value from the environment."""
    for line in text.lstrip("\ufeff").splitlines():
        stripped = line.lstrip()
        if stripped and not stripped.startswith("#"):
            key, separator, value = stripped.partition("=")
            yield key, (value if separator else os.environ.get(key, "")).encode()


def lay_out(objects: Mapping[str, Data], root: Path, *, is_private: bool) -> set[str]:
    """Write objects as folders NAME/KEY, as Kubernetes mounts them; the `NAME/KEY` of all that changed.

    Each file is replaced in one step, so that a reader sees the old content or the new one. Private files are
    readable by their owner alone.
    """
    root.mkdir(parents=True, exist_ok=True, mode=0o700 if is_private else 0o755)
    wanted = {f"{name}/{key}": content for name, data in objects.items() for key, content in data.items()}
    present = {path.relative_to(root).as_posix() for path in root.glob("*/*")}
    for path in present - wanted.keys():
        (root / path).unlink()
    changed = present - wanted.keys()
    for path, content in wanted.items():
        target = root / path
        if path not in present or target.read_bytes() != content:
            target.parent.mkdir(exist_ok=True)
            fresh = target.with_name(f".{target.name}.new")
            fresh.touch(mode=0o600 if is_private else 0o644)
            fresh.write_bytes(content)
            fresh.replace(target)
            changed.add(path)
    return changed
