"""The files that a flow's sources name, read from its objects and volumes.

Called by `references` (which reports what is missing), `build` and `evaluate`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from chatflow_api.v1alpha1 import Source

from chatflow_cli.local.objects import Data


@dataclass(frozen=True, slots=True)
class ContentFile:
    """One file: `path` as messages and citations name it (OBJECT/KEY, or a path below the volume)."""

    path: str
    content: bytes


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
