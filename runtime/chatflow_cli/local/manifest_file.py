"""A manifest on disk: the file that is meant, its flow, and the objects that lie beside it.

Called by every command that takes a manifest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from chatflow_api.manifest_source import SourceInvalid, read_documents
from chatflow_api.v1alpha1 import GROUP, ChatFlow
from chatflow_api.validation import Manifest, ManifestInvalid, read_manifest

from chatflow_cli.errors import ManifestUnusable
from chatflow_cli.local.objects import Objects, kustomization_of, read_objects


@dataclass(frozen=True)
class FlowFiles:
    """A validated manifest with everything that its folder says about it."""

    path: Path
    manifest: Manifest
    objects: Objects

    @property
    def flow(self) -> ChatFlow:
        """The flow."""
        return self.manifest.flow

    @property
    def folder(self) -> Path:
        """The folder of the manifest; relative paths count from here."""
        return self.path.parent


def read_text(path: Path) -> str:
    """The text of a file; ManifestUnusable when there is none."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise ManifestUnusable(f"{path}: no such file; correct the path") from error
    except OSError as error:
        raise ManifestUnusable(f"{path}: {error.strerror}; name a file that can be read") from error
    return decoded(content, str(path))


def decoded(content: bytes, filename: str) -> str:
    """Bytes as text, with line ends as YAML counts them; ManifestUnusable when they are not UTF-8."""
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ManifestUnusable(f"{filename}: byte {error.start} is not UTF-8; save the file as UTF-8") from error


def find_manifest(path: Path) -> Path:
    """The manifest that a path means: the file itself, or the one ChatFlow of a folder."""
    if not path.is_dir():
        return path
    found = [file for file in sorted([*path.glob("*.yaml"), *path.glob("*.yml")]) if _holds_flow(file)]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(file.name for file in found)
        raise ManifestUnusable(f"{path}: the folder holds several ChatFlows ({names}); name one file")
    where = "beside its kustomization" if kustomization_of(path) else "in it"
    raise ManifestUnusable(f"{path}: no file with a ChatFlow stands {where}; name the manifest")


def _holds_flow(file: Path) -> bool:
    try:
        documents = read_documents(file.read_text(encoding="utf-8"))
    except (SourceInvalid, OSError, UnicodeDecodeError):
        # A broken file is shown by name only when it is the one that is meant.
        return file.name == "chatflow.yaml"
    return any(
        isinstance(document.data, dict) and str(document.data.get("apiVersion", "")).startswith(f"{GROUP}/")
        for document in documents
    )


def load(path: Path, overrides: Mapping[str, str] | None = None) -> FlowFiles:
    """The flow of a file or folder; ManifestUnusable with every problem, one line each."""
    file = find_manifest(path)
    try:
        manifest = read_manifest(read_text(file), str(file), overrides)
    except ManifestInvalid as error:
        raise ManifestUnusable(str(error)) from error
    objects = read_objects(manifest.documents, file)
    return FlowFiles(file, manifest, objects)
