"""Reads the files of a knowledge base, whatever their format. Called by `chatflow up`, `chatflow validate` and the job
that builds an index."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from chatflow_runtime.adapters.knowledge.documents import Document, chunks
from chatflow_runtime.adapters.knowledge.entries import Entry, Knowledge, TrainingExample
from chatflow_runtime.adapters.knowledge.pairs import PairReader
from chatflow_runtime.adapters.knowledge.plain import read_text
from chatflow_runtime.errors import SourcesInvalid

PAIR_ENDINGS = frozenset({"yaml", "yml", "jsonl", "csv"})
DOCUMENT_ENDINGS = frozenset({"md", "markdown", "html", "htm", "txt", "pdf"})


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file: its path as messages and citations name it (with `/`), and its bytes."""

    path: str
    content: bytes


def read_files(files: Iterable[SourceFile]) -> Knowledge:
    """The knowledge in the files, in order of their paths, so that the order they come in does not matter.

    Raises SourcesInvalid, which lists every problem of every file.
    """
    problems: list[str] = []
    entries: dict[str, tuple[str, Entry]] = {}
    for file in sorted(files, key=lambda file: file.path):
        ending = PurePosixPath(file.path).suffix.lower().lstrip(".")
        if ending in PAIR_ENDINGS:
            _add_pairs(file, ending, entries, problems)
        elif ending in DOCUMENT_ENDINGS:
            _add_document(file, ending, entries, problems)
        else:
            known = ", ".join(f".{name}" for name in sorted(PAIR_ENDINGS | DOCUMENT_ENDINGS))
            problems.append(f"{file.path}: the ending {'.' + ending!r} is unknown; knowledge is read from {known}")
    if problems:
        raise SourcesInvalid(tuple(problems))
    found = tuple(entry for _, entry in entries.values())
    examples = (
        TrainingExample(text, entry.intent, entry.id) for entry in found if entry.intent for text in entry.variants
    )
    return Knowledge(found, tuple(examples))


def _add_pairs(file: SourceFile, ending: str, entries: dict[str, tuple[str, Entry]], problems: list[str]) -> None:
    text = _decoded(file, problems)
    if text is None:
        return
    for number, entry in PairReader(file.path, problems).read(text, ending):
        where = f"{file.path}, entry {number}"
        if entry.id in entries:
            first, other = entries[entry.id]
            remedy = "ask the question once" if other.title == entry.title else "give one of them another id"
            problems.append(f"{where}: id is {entry.id!r}, which {first} has already; {remedy}")
        else:
            entries[entry.id] = (where, entry)


def _add_document(file: SourceFile, ending: str, entries: dict[str, tuple[str, Entry]], problems: list[str]) -> None:
    try:
        document = _document(file, ending, problems)
    except (ValueError, RecursionError) as error:
        problems.append(f"{file.path}: {error}")
        return
    if document is None:
        return
    found = chunks(document, file.path)
    if not found:
        problems.append(f"{file.path}: the file holds no text; write something into it or leave it out")
    for entry in found:
        # The same chunk under the same headings in files of the same name is one piece of knowledge.
        entries.setdefault(entry.id, (file.path, entry))


def _document(file: SourceFile, ending: str, problems: list[str]) -> Document | None:
    # Parsers are imported when a file wants them: a gateway reads none, and they take most of a second to import.
    title = PurePosixPath(file.path).stem
    if ending == "pdf":
        from chatflow_runtime.adapters.knowledge.pdf import read_pdf

        return read_pdf(file.content, title)
    text = _decoded(file, problems)
    if text is None:
        return None
    if ending in {"md", "markdown"}:
        from chatflow_runtime.adapters.knowledge.markdown import read_markdown

        return read_markdown(text, title)
    if ending in {"html", "htm"}:
        from chatflow_runtime.adapters.knowledge.html import read_html

        return read_html(text, title)
    return read_text(text, title)


def _decoded(file: SourceFile, problems: list[str]) -> str | None:
    try:
        return file.content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        problems.append(
            f"{file.path}: byte {error.start} ({file.content[error.start]:#04x}) is not UTF-8; save the file as UTF-8"
        )
        return None
