"""The intent model on disk: a folder with manifest.json, weights.npz, report.json and report.md, and with the ONNX
encoder that it was trained with.

Written by `training`, read by `IntentModel.load`. A folder is written beside its place and renamed into it, so that a
reader never sees half of one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .calibration import Calibration
from .durable_files import sync, sync_folder
from .errors import ArtefactError
from .features import Float32

SCHEMA_VERSION = 2
MANIFEST, WEIGHTS, REPORT_JSON, REPORT_TEXT = "manifest.json", "weights.npz", "report.json", "report.md"
ENCODER = "encoder"
"""The folder of an ONNX encoder inside an artefact, which may be served where there is no other."""
ENCODER_FILES = ("model.onnx", "tokenizer.json")
_TRAINED_ON, _LABELLED_AS = "trained_on", "labelled_as"
_ARRAYS = (
    "words",
    "pieces",
    "idf",
    "rows",
    "dense",
    "bias",
    "topic_starts",
    "mean",
    "examples",
    "gram_pointers",
    "gram_ids",
    "gram_weights",
    "starts",
    "probes",
)


class Evidence(StrEnum):
    """A kind of evidence for the classes, beside the linear model."""

    TOPICS = "topics"
    """The finer model of questions with one answer."""
    VECTORS = "vectors"
    """Likeness to the nearest examples by the encoder's vectors."""
    GRAMS = "grams"
    """The same by n-grams."""


@dataclass(frozen=True, slots=True)
class ReportSummary:
    """The figures of a training report that travel with the model; all from held-out folds, 0 to 1."""

    examples: int
    intents: int
    out_of_scope_examples: int
    accuracy: float
    calibration_error: float
    coverage: float
    precision: float
    out_of_scope_leak: float | None
    training_s: float
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StoredModel:
    """Everything that an artefact says about a model."""

    labels: tuple[str, ...]
    """In-scope intents; the last column of every weight is the out-of-scope class."""
    encoder: str
    encoder_path: str | None
    threshold: float
    calibration: Calibration
    evidence: tuple[Evidence, ...]
    """What the calibration's weights are for."""
    unknown_idf: float
    words: tuple[str, ...]
    pieces: tuple[str, ...]
    idf: Float32
    """(words + pieces,) inverse document frequencies."""
    rows: Float32
    """(words + pieces, labels + 1 + topics) weights times idf."""
    dense: Float32
    """(dimensions, labels + 1 + topics) weights of the encoder's vector."""
    bias: Float32
    """(labels + 1 + topics,)."""
    topic_starts: NDArray[np.int64]
    """(labels + 1,) first topic of each class; empty without topics."""
    mean: Float32
    """(dimensions,) mean vector of the examples."""
    examples: NDArray[np.float16]
    """(n, dimensions) the examples' vectors, centred, of length 1, sorted by class."""
    gram_pointers: NDArray[np.int64]
    """(n + 1,) where the n-grams of each example begin in the two arrays below, in the same order."""
    gram_ids: NDArray[np.int32]
    gram_weights: NDArray[np.float16]
    starts: NDArray[np.int64]
    """(labels + 1,) first row of each class in `examples`."""
    probes: Float32
    """(2, dimensions) vectors of `scoring.PROBES`."""
    report: ReportSummary
    trained_on: NDArray[np.uint64] | None = None
    """Fingerprints of the examples; None in artefacts that know of none. They decide no prediction, so the version is
    the same without them."""
    labelled_as: NDArray[np.uint64] | None = None
    """Those of the examples together with their labels, likewise."""

    @property
    def version(self) -> str:
        """Hash of what decides predictions: 16 hexadecimal digits, the same for the same training."""
        digest = hashlib.sha256(json.dumps(self._settings(), sort_keys=True).encode())
        for name, array in self.arrays().items():
            digest.update(f"{name}{array.shape}{array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]

    def _settings(self) -> dict[str, Any]:
        return {
            "labels": list(self.labels),
            "encoder": {"name": self.encoder, "dimensions": int(self.dense.shape[0])},
            "threshold": self.threshold,
            "temperature": self.calibration.temperature,
            "outOfScopeBias": self.calibration.out_of_scope_bias,
            "evidence": dict(zip(self.evidence, self.calibration.weights, strict=True)),
            "unknownIdf": self.unknown_idf,
        }

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What weights.npz holds, less the fingerprints."""
        return {
            "words": _packed(self.words),
            "pieces": _packed(self.pieces),
            "idf": self.idf,
            "rows": self.rows,
            "dense": self.dense,
            "bias": self.bias,
            "topic_starts": self.topic_starts,
            "mean": self.mean,
            "examples": self.examples,
            "gram_pointers": self.gram_pointers,
            "gram_ids": self.gram_ids,
            "gram_weights": self.gram_weights,
            "starts": self.starts,
            "probes": self.probes,
        }

    def manifest(self, checksums: Mapping[str, str]) -> dict[str, Any]:
        """What manifest.json holds."""
        settings = self._settings()
        settings["encoder"]["path"] = self.encoder_path
        return {
            "schemaVersion": SCHEMA_VERSION,
            "version": self.version,
            "files": dict(checksums),
            **settings,
            "trainedOn": asdict(self.report),
        }


def _packed(strings: tuple[str, ...]) -> NDArray[np.uint8]:
    """Strings as UTF-8, one a line: n-grams hold no line break, and arrays of objects would need pickles."""
    return np.frombuffer("\n".join(strings).encode("utf-8"), dtype=np.uint8)


def _unpacked(array: NDArray[np.uint8]) -> tuple[str, ...]:
    text = array.tobytes().decode("utf-8")
    return tuple(text.split("\n")) if text else ()


def _checksum(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


def write_artefact(
    folder: Path,
    stored: StoredModel,
    report: Mapping[str, Any],
    report_text: str,
    extra: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Writes a model, its report and its ONNX encoder; an artefact that stands there is replaced as a whole.

    `extra` are further texts by file name, which no reader of artefacts asks for. ArtefactError for an encoder that
    cannot be read."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        staging.chmod(0o755)
        known = {_TRAINED_ON: stored.trained_on, _LABELLED_AS: stored.labelled_as}
        arrays = stored.arrays() | {name: array for name, array in known.items() if array is not None}
        np.savez(staging / WEIGHTS, allow_pickle=False, **arrays)
        (staging / REPORT_JSON).write_text(_json(report), encoding="utf-8")
        (staging / REPORT_TEXT).write_text(report_text, encoding="utf-8")
        for name, text in extra.items():
            (staging / name).write_text(text, encoding="utf-8")
        names = [WEIGHTS, REPORT_JSON, REPORT_TEXT]
        if stored.encoder_path is not None:
            names += _bring_encoder(Path(stored.encoder_path), staging, folder.parent)
        files = {name: _checksum(staging / name) for name in names}
        (staging / MANIFEST).write_text(_json(stored.manifest(files)), encoding="utf-8")
        sync_folder(staging)
        _replace(staging, folder)
        sync(folder.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _bring_encoder(source: Path, staging: Path, artefacts: Path) -> list[str]:
    """Puts an encoder into an artefact, and names its files there. Artefacts beside it that have the same one share it;
    from the source it is copied, since links would change with it."""
    (staging / ENCODER).mkdir(mode=0o755)
    try:
        for name in ENCODER_FILES:
            target, wanted = staging / ENCODER / name, _checksum(source / name)
            same = (path for path in artefacts.glob(f"*/{ENCODER}/{name}") if _checksum(path) == wanted)
            try:
                os.link(next(same), target)
            except (OSError, StopIteration):
                shutil.copyfile(source / name, target)
        sync_folder(staging / ENCODER)
    except OSError as error:
        raise ArtefactError(f"the encoder cannot be brought into the artefact: {error}") from error
    return [f"{ENCODER}/{name}" for name in ENCODER_FILES]


def _replace(staging: Path, folder: Path) -> None:
    """Renames a folder into its place; a rename cannot replace a folder that holds files, so the old one moves away."""
    if not folder.exists():
        staging.rename(folder)
        return
    if not (folder / MANIFEST).is_file() and any(folder.iterdir()):
        raise ArtefactError(f"{folder} exists and is no intent artefact; name another folder or empty it")
    retired = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        folder.rename(retired / "old")
        staging.rename(folder)
    finally:
        shutil.rmtree(retired, ignore_errors=True)


def read_artefact(folder: Path) -> StoredModel:
    """The model of a folder; ArtefactError names what is missing, damaged or too new."""
    manifest = _read_manifest(folder)
    for name, wanted in manifest["files"].items():
        if not (folder / name).is_file():
            raise ArtefactError(f"{folder / name} is missing; train the model again")
        found = _checksum(folder / name)
        if found != wanted:
            raise ArtefactError(
                f"{folder / name} is damaged: checksum {found[:12]}, the manifest says {wanted[:12]};"
                " train the model again"
            )
    try:
        with np.load(folder / WEIGHTS, allow_pickle=False) as weights:
            arrays = {name: weights[name] for name in _ARRAYS}
            stored = _stored(manifest, arrays, weights.get(_TRAINED_ON), weights.get(_LABELLED_AS))
    except (KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise ArtefactError(f"{folder} cannot be read: {error}; train the model again") from error
    if stored.version != manifest["version"]:
        raise ArtefactError(f"{folder / MANIFEST} does not belong to its weights; train the model again")
    return stored


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtefactError(f"{path} is missing; {folder} is no intent artefact") from error
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{path} cannot be read: {error}") from error
    schema = manifest.get("schemaVersion") if isinstance(manifest, dict) else None
    if not isinstance(schema, int):
        raise ArtefactError(f"{path} names no schemaVersion; {folder} is no intent artefact")
    if schema > SCHEMA_VERSION:
        raise ArtefactError(
            f"{path} has schema {schema}, newer than {SCHEMA_VERSION}, which this version of ChatFlow reads;"
            " upgrade ChatFlow or train the model again"
        )
    known = {WEIGHTS, REPORT_JSON, REPORT_TEXT}
    encoder = {f"{ENCODER}/{name}" for name in ENCODER_FILES}
    if not isinstance(manifest.get("files"), dict) or set(manifest["files"]) not in (known, known | encoder):
        raise ArtefactError(f"{path} does not list the files of an artefact; train the model again")
    return dict(manifest)


def _stored(
    manifest: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
    trained_on: NDArray[np.uint64] | None,
    labelled_as: NDArray[np.uint64] | None,
) -> StoredModel:
    report = dict(manifest["trainedOn"])
    report["warnings"] = tuple(report["warnings"])
    stored = StoredModel(
        labels=tuple(manifest["labels"]),
        encoder=manifest["encoder"]["name"],
        encoder_path=manifest["encoder"]["path"],
        threshold=float(manifest["threshold"]),
        calibration=Calibration(
            float(manifest["temperature"]),
            float(manifest["outOfScopeBias"]),
            tuple(float(weight) for weight in manifest["evidence"].values()),
        ),
        evidence=tuple(map(Evidence, manifest["evidence"])),
        unknown_idf=float(manifest["unknownIdf"]),
        words=_unpacked(arrays["words"]),
        pieces=_unpacked(arrays["pieces"]),
        idf=arrays["idf"],
        rows=arrays["rows"],
        dense=arrays["dense"],
        bias=arrays["bias"],
        topic_starts=arrays["topic_starts"],
        mean=arrays["mean"],
        examples=arrays["examples"],
        gram_pointers=arrays["gram_pointers"],
        gram_ids=arrays["gram_ids"],
        gram_weights=arrays["gram_weights"],
        starts=arrays["starts"],
        probes=arrays["probes"],
        report=ReportSummary(**report),
        trained_on=trained_on,
        labelled_as=labelled_as,
    )
    grams, classes = len(stored.words) + len(stored.pieces), len(stored.labels) + 1
    if stored.rows.shape[0] != grams or stored.rows.shape[1] < classes or stored.idf.shape != (grams,):
        raise ValueError(f"weights of shape {stored.rows.shape} for {grams} n-grams and {classes} classes")
    return stored
