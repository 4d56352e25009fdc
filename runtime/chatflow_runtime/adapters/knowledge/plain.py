"""Plain text to blocks. `sources` calls it, and `pdf` shares its idea of a paragraph."""

from __future__ import annotations

import re

from chatflow_runtime.adapters.knowledge.documents import Block, BlockKind, Document

BLANK_LINES = re.compile(r"\n[ \t]*(?:\n[ \t]*)+")
"""What lies between paragraphs."""


def read_text(text: str, title: str) -> Document:
    """The document: paragraphs lie between blank lines, and the title leads to all of them."""
    blocks = (Block(BlockKind.PARAGRAPH, part.strip()) for part in BLANK_LINES.split(text))
    return Document(tuple(block for block in blocks if block.text), title)
