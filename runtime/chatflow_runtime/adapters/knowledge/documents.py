"""Cuts a document into chunks along its headings. The readers of each format hand in blocks, `sources` calls `chunks`.

A chunk's id depends on its headings and its text alone, so an edit elsewhere in the file leaves it as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath
from typing import assert_never

from chatflow_runtime.adapters.knowledge.entries import Entry, fingerprint

CHUNK_LENGTH = 800
"""Characters up to which paragraphs of a section share a chunk. A code block or a table row may be longer."""
PATH_SEPARATOR = " › "

_SENTENCE = re.compile(r".+?(?:[。！？!?；;…]+[”’」』）)\"']*|[.](?=\s)[\"')]*|$)\s*", re.DOTALL)
_CLAUSE = re.compile(r".+?(?:[，、：,:](?=\s|[^\d])|$)\s*", re.DOTALL)
_CJK = re.compile(r"[\u3400-\u9fff\uf900-\ufaff\u3040-\u30ff\uac00-\ud7af]")


class BlockKind(StrEnum):
    """What a block is, which decides where it may be cut."""

    HEADING = "heading"
    PARAGRAPH = "paragraph"
    LIST = "list"
    """One item on each line."""
    TABLE = "table"
    """One row on each line, the head first."""
    CODE = "code"


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of a document in reading order. `level` is that of a heading, from 1."""

    kind: BlockKind
    text: str
    level: int = 0


@dataclass(frozen=True, slots=True)
class Document:
    """A file as blocks. `title` leads the path of every chunk that no top heading leads."""

    blocks: tuple[Block, ...]
    title: str
    url: str | None = None
    intent: str | None = None


def chunks(document: Document, source: str) -> list[Entry]:
    """The document's chunks in reading order; a chunk that occurs twice under the same headings is kept once."""
    stem = PurePosixPath(source).stem
    found: dict[str, Entry] = {}
    for path, blocks in _sections(document):
        title = PATH_SEPARATOR.join(path)
        for text in _packed(blocks):
            identity = f"{stem}#{fingerprint(*path, text)}"
            entry = Entry(
                id=identity,
                title=title,
                text=text,
                kind="document",
                source=source,
                # The last heading says what the section is about; the path before it is the same for many.
                variants=tuple(dict.fromkeys((title, path[-1]))),
                url=document.url,
                intent=document.intent,
            )
            found.setdefault(identity, entry)
    return list(found.values())


def _sections(document: Document) -> Iterator[tuple[tuple[str, ...], list[Block]]]:
    """(heading path, blocks) for each section that holds something besides headings."""
    headings: list[tuple[int, str]] = []
    blocks: list[Block] = []
    for block in (*document.blocks, Block(BlockKind.HEADING, "", 1)):
        if block.kind is not BlockKind.HEADING:
            if block.text.strip():
                blocks.append(block)
            continue
        if blocks:
            path = tuple(text for _, text in headings)
            yield path if _has_top(headings) else (document.title, *path), blocks
            blocks = []
        headings = [(level, text) for level, text in headings if level < block.level]
        if block.text.strip():
            headings.append((block.level, block.text.strip()))


def _has_top(headings: list[tuple[int, str]]) -> bool:
    return bool(headings) and headings[0][0] == 1


def _packed(blocks: Iterable[Block]) -> Iterator[str]:
    """Blocks gathered, in order, into texts of up to CHUNK_LENGTH characters."""
    text = ""
    for piece in (piece for block in blocks for piece in _pieces(block)):
        if text and len(text) + 2 + len(piece) > CHUNK_LENGTH:
            yield text
            text = piece
        else:
            text = f"{text}\n\n{piece}" if text else piece
    if text:
        yield text


def _pieces(block: Block) -> Iterator[str]:
    """The block, cut where its kind allows it if it is too long for one chunk."""
    if len(block.text) <= CHUNK_LENGTH:
        yield block.text
        return
    match block.kind:
        case BlockKind.TABLE:
            head, *rows = block.text.split("\n")
            for part in _joined(rows, "\n", CHUNK_LENGTH - len(head) - 1):
                yield f"{head}\n{part}"
        case BlockKind.CODE:
            yield from _joined(block.text.split("\n"), "\n", CHUNK_LENGTH)
        case BlockKind.LIST:
            items = [piece for line in block.text.split("\n") for piece in _sentences(line)]
            yield from _joined(items, "\n", CHUNK_LENGTH)
        case BlockKind.PARAGRAPH | BlockKind.HEADING:
            yield from _sentences(block.text)
        case _:
            assert_never(block.kind)


def _sentences(text: str) -> Iterator[str]:
    """The text cut at the ends of sentences; a sentence that is too long is cut at clauses, then between words."""
    if len(text) <= CHUNK_LENGTH:
        yield text
        return
    parts: list[str] = []
    for sentence in _SENTENCE.findall(text):
        if len(sentence) <= CHUNK_LENGTH:
            parts.append(sentence)
            continue
        for clause in _CLAUSE.findall(sentence):
            parts.extend([clause] if len(clause) <= CHUNK_LENGTH else _words(clause))
    for part in _joined(parts, "", CHUNK_LENGTH):
        yield part.strip()


def _words(text: str) -> list[str]:
    """Words with the white space after them; Chinese words as the segmenter finds them. A word that is longer than a
    chunk, such as an encoded picture, is cut anywhere."""
    # It takes a while to load its dictionary, and a gateway cuts nothing.
    import rjieba

    words: list[str] = []
    for run in re.findall(r"\S+\s*|\s+", text):
        words.extend(rjieba.cut(run) if _CJK.search(run) else [run])
    return [word[start : start + CHUNK_LENGTH] for word in words for start in range(0, len(word), CHUNK_LENGTH)]


def _joined(parts: Iterable[str], separator: str, length: int) -> Iterator[str]:
    """Neighbouring parts joined while they fit into `length` characters; one that never fits stands alone."""
    text: str | None = None
    for part in parts:
        if text is None:
            text = part
        elif len(text) + len(separator) + len(part) > length:
            yield text
            text = part
        else:
            text += separator + part
    if text is not None:
        yield text
