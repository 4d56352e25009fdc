"""What goes into a flow's artefacts, and a fingerprint of it.

Made by `artefacts` and `evaluate`, carried out by `build`.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import util
from pathlib import Path
from typing import Self

import msgspec
from chatflow_api.runtime_config import RuntimeConfig

from chatflow_cli.local.references import Content

_BUILDERS = ("chatflow_models", "chatflow_runtime.adapters.knowledge")
"""Packages whose code decides what an artefact looks like."""


class KnowledgeFile(msgspec.Struct, frozen=True):
    """One file of the knowledge base."""

    path: str
    content: bytes


class BuildRequest(msgspec.Struct, frozen=True):
    """Everything that training and indexing read, so that a child process needs no other file."""

    encoder: str
    encoder_path: str | None
    encoder_state: str
    """Size and time of the encoder's files, so that a changed one counts."""
    code: str
    """Hash of the code that builds, so that another release builds anew."""
    confidence: float
    examples: tuple[tuple[str, str, str], ...]
    """(text, intent, source)."""
    knowledge: tuple[KnowledgeFile, ...]

    @classmethod
    def of(cls, config: RuntimeConfig, content: Content) -> Self:
        """The request of a flow."""
        intent = config.intent
        return cls(
            encoder=intent.encoder.value,
            encoder_path=intent.encoder_path,
            encoder_state=_state(intent.encoder_path),
            code=_code(),
            confidence=intent.confidence,
            examples=tuple((example.text, example.intent, example.source) for example in content.examples),
            knowledge=tuple(KnowledgeFile(file.path, file.content) for file in content.knowledge),
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The request that `encode` wrote."""
        return msgspec.msgpack.decode(data, type=cls)

    def encode(self) -> bytes:
        """The request as bytes."""
        return msgspec.msgpack.encode(self)

    @property
    def settings(self) -> bytes:
        """What, beside the content, decides what is built."""
        return f"{self.encoder} {self.encoder_path} {self.encoder_state} {self.code}".encode()

    def fingerprint(self) -> str:
        """Twelve hex digits that stand for the whole request."""
        return digest(self.encode())


def digest(*parts: bytes) -> str:
    """Twelve hex digits of the parts; they name an artefact's version."""
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "big"))
        total.update(part)
    return total.hexdigest()[:12]


@cache
def _code() -> str:
    files: list[Path] = []
    for name in _BUILDERS:
        spec = util.find_spec(name)
        assert spec is not None, "both are in the same distribution"  # noqa: S101
        for folder in spec.submodule_search_locations or ():
            files += sorted(path for path in Path(folder).rglob("*") if path.suffix in (".py", ".txt"))
    return digest(*(file.read_bytes() for file in files))


def _state(folder: str | None) -> str:
    if folder is None or not Path(folder).is_dir():
        # The build itself says what is missing.
        return ""
    files = sorted(path for path in Path(folder).iterdir() if path.is_file())
    return ";".join(f"{file.name}:{file.stat().st_size}:{file.stat().st_mtime_ns}" for file in files)
