"""HTML to blocks, by Beautiful Soup on the standard library's parser. Called by `sources`, and by `markdown`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bs4 import BeautifulSoup
from bs4.element import NavigableString, PreformattedString, Tag

from chatflow_runtime.adapters.knowledge.documents import Block, BlockKind, Document

_SPACE = re.compile(r"\s+")
_HEADING = re.compile(r"h([1-6])")
_FURNITURE = ("script", "style", "noscript", "template", "nav", "aside", "footer", "form", "svg", "iframe", "button")
_BLOCK_TAGS = frozenset(
    [
        "address",
        "article",
        "blockquote",
        "body",
        "center",
        "dd",
        "details",
        "div",
        "dl",
        "dt",
        "figcaption",
        "figure",
        "header",
        "html",
        "li",
        "main",
        "ol",
        "p",
        "pre",
        "section",
        "summary",
        "table",
        "ul",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "hr",
    ]
)


def read_html(text: str, fallback_title: str) -> Document:
    """The document: its <main> or <article> where there is one, without navigation; the canonical link is its URL."""
    soup = BeautifulSoup(text, "html.parser")
    title, url = _title(soup), _canonical(soup)
    for element in soup(list(_FURNITURE)):
        element.decompose()
    for element in soup.select("[hidden], [aria-hidden=true], head"):
        if not element.decomposed:
            element.decompose()
    articles = soup("article")
    root = soup.find("main") or (articles[0] if len(articles) == 1 else None) or soup.find("body") or soup
    return Document(tuple(_blocks(root)), title or fallback_title, url)


def text_of_html(text: str) -> str:
    """The text of an HTML fragment, in one line."""
    return _squeezed(BeautifulSoup(text, "html.parser").get_text(" "))


def _title(soup: BeautifulSoup) -> str | None:
    return _squeezed(soup.title.get_text()) or None if soup.title else None


def _canonical(soup: BeautifulSoup) -> str | None:
    link = soup.find("link", rel="canonical")
    address = str(link.get("href", "")) if isinstance(link, Tag) else ""
    return address if address.startswith(("http://", "https://")) else None


def _blocks(root: Tag) -> Iterator[Block]:
    """The blocks inside an element; text between block elements is a paragraph of its own."""
    loose: list[str] = []
    for child in root.children:
        if not isinstance(child, Tag) or (child.name not in _BLOCK_TAGS and not child.find(list(_BLOCK_TAGS))):
            loose.append(_inline(child))
            continue
        yield from _paragraph(loose)
        loose = []
        yield from _element(child)
    yield from _paragraph(loose)


def _paragraph(texts: list[str]) -> Iterator[Block]:
    text = _lines("".join(texts))
    if text:
        yield Block(BlockKind.PARAGRAPH, text)


def _element(element: Tag) -> Iterator[Block]:
    heading = _HEADING.fullmatch(element.name)
    if heading:
        yield Block(BlockKind.HEADING, _squeezed(_inline(element)), int(heading[1]))
    elif element.name == "pre":
        yield Block(BlockKind.CODE, element.get_text().strip("\n"))
    elif element.name in {"ul", "ol"}:
        yield Block(BlockKind.LIST, "\n".join(_items(element, "")))
    elif element.name == "table":
        yield Block(BlockKind.TABLE, "\n".join(_rows(element)))
    else:
        yield from _blocks(element)


def _items(element: Tag, indent: str) -> Iterator[str]:
    for number, item in enumerate(element.find_all("li", recursive=False), 1):
        nested = [inner.extract() for inner in item.find_all(["ul", "ol"]) if inner.find_parent("li") is item]
        yield f"{indent}{f'{number}.' if element.name == 'ol' else '-'} {_squeezed(_inline(item))}"
        for inner in nested:
            yield from _items(inner, indent + "  ")


def _rows(table: Tag) -> Iterator[str]:
    for row in table.find_all("tr"):
        if row.find_parent("table") is table:
            yield " | ".join(_squeezed(_inline(cell)) for cell in row.find_all(["th", "td"], recursive=False))


def _inline(node: object) -> str:
    """The text of inline content; line breaks stay, a link keeps its address in parentheses."""
    if isinstance(node, PreformattedString):
        return ""
    if isinstance(node, NavigableString):
        return _SPACE.sub(" ", str(node))
    if not isinstance(node, Tag):
        return ""
    if node.name == "br":
        return "\n"
    shown = "".join(_inline(child) for child in node.children)
    address = str(node.get("href", "")) if node.name == "a" else ""
    if address.startswith(("http://", "https://")) and address != shown:
        return f"{shown} ({address})"
    return f"{shown} " if node.name in _BLOCK_TAGS else shown


def _lines(text: str) -> str:
    return "\n".join(line for line in (_squeezed(line) for line in text.split("\n")) if line)


def _squeezed(text: str) -> str:
    return _SPACE.sub(" ", text).strip()
