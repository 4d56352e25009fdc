"""Markdown to blocks, by markdown-it-py (CommonMark and tables). `sources` calls it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

from chatflow_runtime.adapters.knowledge.documents import Block, BlockKind, Document
from chatflow_runtime.adapters.knowledge.entries import INTENT
from chatflow_runtime.adapters.knowledge.html import text_of_html

_FRONT_MATTER = re.compile(r"---[ \t]*\r?\n(.*?\n)?---[ \t]*(\r?\n|\Z)", re.DOTALL)
_CJK_BREAK = re.compile(r"(?<=[\u3000-\u9fff\uff00-\uffef]) (?=[\u3000-\u9fff\uff00-\uffef])")


def read_markdown(text: str, fallback_title: str) -> Document:
    """The document; a front matter may give `title`, `url` and `intent`, the intent of the questions that the whole
    document answers. Raises ValueError when the front matter is broken."""
    fields, body = _front_matter(text)
    intent = fields.get("intent")
    if intent is not None and not INTENT.fullmatch(intent):
        raise ValueError(f"the front matter's intent is {intent!r}; it is lower-case letters, digits, '_' and '-'")
    tokens = MarkdownIt("commonmark").enable("table").parse(body)
    url = fields.get("url", "")
    return Document(
        tuple(_blocks(tokens)),
        fields.get("title") or fallback_title,
        url if url.startswith(("http://", "https://")) else None,
        intent,
    )


def _front_matter(text: str) -> tuple[dict[str, str], str]:
    """Its fields that are texts, and what follows it."""
    found = _FRONT_MATTER.match(text)
    if found is None:
        return {}, text
    try:
        fields = yaml.safe_load(found[1] or "")
    except yaml.YAMLError as error:
        raise ValueError(f"the front matter between the '---' lines is no YAML ({error})") from error
    if not isinstance(fields, dict):
        return {}, text
    return {name: value for name, value in fields.items() if isinstance(value, str)}, text[found.end() :]


def _blocks(tokens: Sequence[Token]) -> Iterator[Block]:
    position = 0
    while position < len(tokens):
        end = _closing(tokens, position)
        token, inner = tokens[position], tokens[position + 1 : end]
        match token.type:
            case "heading_open":
                yield Block(BlockKind.HEADING, _inline(inner), int(token.tag[1:]))
            case "paragraph_open":
                yield Block(BlockKind.PARAGRAPH, _inline(inner))
            case "fence" | "code_block":
                yield Block(BlockKind.CODE, token.content.rstrip("\n"))
            case "bullet_list_open" | "ordered_list_open":
                yield from _list(token, inner)
            case "table_open":
                yield Block(BlockKind.TABLE, "\n".join(_rows(inner)))
            case "html_block":
                yield Block(BlockKind.PARAGRAPH, text_of_html(token.content))
            case "blockquote_open":
                yield from _blocks(inner)
            case _:
                pass
        position = end + 1


def _closing(tokens: Sequence[Token], start: int) -> int:
    """Where the element that opens at `start` ends."""
    depth = 0
    for position in range(start, len(tokens)):
        depth += tokens[position].nesting
        if depth == 0:
            return position
    return len(tokens) - 1


def _list(opening: Token, inner: Sequence[Token]) -> Iterator[Block]:
    """One block for the whole list; code and tables inside an item follow as blocks of their own."""
    lines, others = _items(opening, inner, "")
    yield Block(BlockKind.LIST, "\n".join(lines))
    yield from others


def _items(opening: Token, inner: Sequence[Token], indent: str) -> tuple[list[str], list[Block]]:
    lines: list[str] = []
    others: list[Block] = []
    number = int(opening.attrs.get("start", 1))
    position = 0
    while position < len(inner):
        end = _closing(inner, position)
        mark = f"{number}." if opening.type == "ordered_list_open" else "-"
        texts, nested, rest = _item(inner[position + 1 : end], indent + "  ")
        lines += [f"{indent}{mark} {' '.join(texts)}", *nested]
        others += rest
        number += 1
        position = end + 1
    return lines, others


def _item(tokens: Sequence[Token], indent: str) -> tuple[list[str], list[str], list[Block]]:
    """(the item's own paragraphs, the lines of lists inside it, its other blocks)."""
    texts: list[str] = []
    nested: list[str] = []
    others: list[Block] = []
    position = 0
    while position < len(tokens):
        end = _closing(tokens, position)
        token, inner = tokens[position], tokens[position + 1 : end]
        if token.type in {"bullet_list_open", "ordered_list_open"}:
            lines, rest = _items(token, inner, indent)
            nested += lines
            others += rest
        elif token.type == "paragraph_open":
            texts.append(_inline(inner).replace("\n", " "))
        else:
            others.extend(_blocks(tokens[position : end + 1]))
        position = end + 1
    return texts, nested, others


def _rows(tokens: Sequence[Token]) -> Iterator[str]:
    cells: list[str] = []
    for token in tokens:
        if token.type == "tr_open":
            cells = []
        elif token.type == "inline":
            cells.append(_inline([token]))
        elif token.type == "tr_close":
            yield " | ".join(cells)


def _inline(tokens: Sequence[Token]) -> str:
    """The text of inline content, without marks; a link keeps its address in parentheses."""
    parts = [_leaf(child) for token in tokens for child in _with_addresses(token.children or [])]
    return _CJK_BREAK.sub("", "".join(parts)).strip()


def _with_addresses(children: Sequence[Token]) -> Iterator[Token]:
    address, start = "", 0
    for position, child in enumerate(children):
        yield child
        if child.type == "link_open":
            address, start = str(child.attrs.get("href", "")), position
        elif child.type == "link_close" and address.startswith(("http://", "https://")):
            shown = "".join(_leaf(inner) for inner in children[start:position])
            if shown != address:
                yield Token("text", "", 0, content=f" ({address})")


def _leaf(token: Token) -> str:
    if token.type == "softbreak":
        return " "
    if token.type == "hardbreak":
        return "\n"
    return token.content if token.type in {"text", "code_inline", "image"} else ""
