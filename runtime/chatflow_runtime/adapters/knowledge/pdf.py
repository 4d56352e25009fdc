"""PDF to blocks, by pypdf. `sources` calls it."""

from __future__ import annotations

import io
import logging
import re

from pypdf import PdfReader
from pypdf.errors import PyPdfError

from chatflow_runtime.adapters.knowledge.documents import Block, BlockKind, Document
from chatflow_runtime.adapters.knowledge.plain import BLANK_LINES

_SPACE = re.compile(r"[ \t\u00a0\u3000]+")
_CJK = r"[\u3000-\u303f\u3400-\u9fff\uff00-\uffef]"
_CJK_BREAK = re.compile(rf"(?<={_CJK}) ?\n ?(?={_CJK})")
_HYPHEN_BREAK = re.compile(r"(?<=[a-z])-\n(?=[a-z])")


def read_pdf(content: bytes, title: str) -> Document:
    """The document, each page under the title and its number. Raises ValueError when it cannot be read or holds no
    text, as scans do."""
    # pypdf logs what it repairs; a file that it cannot read at all is raised below.
    logging.getLogger("pypdf").setLevel(logging.ERROR)
    try:
        reader = PdfReader(io.BytesIO(content))
        if reader.is_encrypted and not reader.decrypt(""):
            raise ValueError("the PDF is encrypted; save it without a password")
        pages = [page.extract_text() for page in reader.pages]
    except (PyPdfError, KeyError, TypeError, AttributeError, RecursionError, NotImplementedError) as error:
        # pypdf lets errors of its own parsing through on damaged files.
        raise ValueError(f"this is no readable PDF ({error}); save it again from its source") from error
    if not any(page.strip() for page in pages):
        raise ValueError("the PDF holds no text, only pictures; run text recognition (OCR) over it first")
    blocks: list[Block] = []
    for number, page in enumerate(pages, 1):
        blocks.append(Block(BlockKind.HEADING, f"{title}, p. {number}", 1))
        blocks += (Block(BlockKind.PARAGRAPH, _flowing(part)) for part in BLANK_LINES.split(page))
    return Document(tuple(blocks), title)


def _flowing(text: str) -> str:
    """Lines of a printed paragraph as running text: hyphens at line ends go, and Chinese lines join without a space."""
    text = _CJK_BREAK.sub("", _HYPHEN_BREAK.sub("", text.strip()))
    return _SPACE.sub(" ", text.replace("\n", " ")).strip()
