"""An index on disk: a folder named by its version, with a manifest of checksums. `index` calls it.

No file is a pickle. A folder appears whole or not at all: it is written under another name and then renamed.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from chatflow_models.intent.durable_files import sync, sync_folder

from chatflow_runtime.adapters.knowledge.entries import Entry
from chatflow_runtime.adapters.knowledge.lexical import Postings
from chatflow_runtime.adapters.knowledge.vectors import VectorIndex, load_approximate
from chatflow_runtime.errors import ArtefactInvalid

SCHEMA = 3
MANIFEST = "manifest.json"
ENTRIES = "entries.msgpack"
TERMS = "terms.msgpack"
POSTINGS = "postings.npz"
VECTORS = "vectors.npy"
CENTRE = "centre.npy"
PROBE = "probe.npy"
APPROXIMATE = "vectors.faiss"

_REMEDY = "build the knowledge again"


class Counts(msgspec.Struct, frozen=True):
    """How much an index holds."""

    entries: int
    pairs: int
    documents: int
    variants: int
    vectors: int


class Manifest(msgspec.Struct, frozen=True):
    """What the folder holds; `checksums` are BLAKE2b of each file in hexadecimal."""

    schema: int
    version: str
    counts: Counts
    checksums: dict[str, str]


def write(target: Path, version: str, counts: Counts, fill: Callable[[Path], None]) -> None:
    """Makes the folder `target`: `fill` writes the files into a new folder, which then takes its place. A whole folder
    that is there by then stays; a damaged one goes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".writing-", dir=target.parent))
    try:
        fill(work)
        checksums = {path.name: _checksum(path) for path in sorted(work.iterdir())}
        manifest = Manifest(SCHEMA, version, counts, checksums)
        (work / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
        work.chmod(0o755)
        sync_folder(work)
        _put_in_place(work, target)
        sync(target.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(work.with_name(f"{work.name}-replaced"), ignore_errors=True)


def _put_in_place(work: Path, target: Path) -> None:
    try:
        work.rename(target)
    except OSError:
        # The folder is there: another builder was faster, or it is damaged.
        try:
            read_manifest(target)
        except (ArtefactInvalid, OSError):
            target.rename(work.with_name(f"{work.name}-replaced"))
            work.rename(target)


def read_manifest(folder: Path) -> Manifest:
    """The manifest, once each file has been found to be what it was. Raises ArtefactInvalid."""
    path = folder / MANIFEST
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ArtefactInvalid(f"{folder} holds no knowledge index ({error.strerror}); {_REMEDY}") from error
    try:
        schema = msgspec.json.decode(content, type=dict[str, Any]).get("schema")
        if schema != SCHEMA:
            raise ArtefactInvalid(f"{path}: schema is {schema!r}, this release reads {SCHEMA}; {_REMEDY}")
        manifest = msgspec.json.decode(content, type=Manifest)
    except msgspec.MsgspecError as error:
        raise ArtefactInvalid(f"{path}: the manifest is damaged ({error}); {_REMEDY}") from error
    for name, expected in manifest.checksums.items():
        if not (folder / name).is_file():
            raise ArtefactInvalid(f"{folder / name} is missing; {_REMEDY}")
        if _checksum(folder / name) != expected:
            raise ArtefactInvalid(f"{folder / name} is damaged: its checksum is not the manifest's; {_REMEDY}")
    return manifest


def write_text_index(folder: Path, entries: bytes, postings: Postings) -> None:
    """The entries, encoded already, and their postings."""
    (folder / ENTRIES).write_bytes(entries)
    (folder / TERMS).write_bytes(msgspec.msgpack.encode(postings.terms))
    np.savez(
        folder / POSTINGS,
        rarity=postings.rarity,
        starts=postings.starts,
        entries=postings.entries,
        weights=postings.weights,
    )


def read_text_index(folder: Path) -> tuple[tuple[Entry, ...], Postings]:
    """What `write_text_index` wrote. Raises ArtefactInvalid."""
    try:
        entries = msgspec.msgpack.decode((folder / ENTRIES).read_bytes(), type=tuple[Entry, ...])
        terms = msgspec.msgpack.decode((folder / TERMS).read_bytes(), type=tuple[str, ...])
        with np.load(folder / POSTINGS, allow_pickle=False) as arrays:
            names = ("rarity", "starts", "entries", "weights")
            stored = {name: arrays[name] for name in names}
    except (OSError, ValueError, KeyError, msgspec.MsgspecError) as error:
        raise ArtefactInvalid(f"{folder}: the index cannot be read ({error}); {_REMEDY}") from error
    return entries, Postings(terms=terms, entry_count=len(entries), **stored)


def read_vectors(folder: Path, entries: Sequence[Entry]) -> VectorIndex:
    """The vectors of the entries, exact or approximate as they were written. Raises ArtefactInvalid."""
    approximate = None
    try:
        is_exact = not (folder / APPROXIMATE).exists()
        # Many vectors are not needed at once: only the rows that faiss proposes are read.
        rows = np.load(folder / VECTORS, allow_pickle=False, mmap_mode=None if is_exact else "r")
        centre = np.load(folder / CENTRE, allow_pickle=False)
        probe = np.load(folder / PROBE, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ArtefactInvalid(f"{folder}: the vectors cannot be read ({error}); {_REMEDY}") from error
    if not is_exact:
        approximate = load_approximate(folder / APPROXIMATE, len(rows))
    owners = np.repeat(np.arange(len(entries), dtype=np.int32), [len(entry.variants) for entry in entries])
    return VectorIndex(rows, centre, owners, probe, approximate)


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
