"""YAML text as data plus the place of every value, for messages that name a line. Called by `validation` alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

Path = tuple[str | int, ...]
"""Place of a value inside a document: keys and list indices."""

MAX_VALUES = 200_000
"""Most values a document may hold once its aliases are written out, so that nested aliases cannot fill the memory."""

_TIMESTAMP = "tag:yaml.org,2002:timestamp"
_MERGE = "tag:yaml.org,2002:merge"
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]
    """Leaves dates as text: Kubernetes turns YAML into JSON, which has none."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
        for first, resolvers in _Base.yaml_implicit_resolvers.items()
    }


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands, counted from 1, and how it is written if it is a scalar."""

    line: int
    column: int
    text: str | None = None


class SourceInvalid(Exception):
    """The text cannot be read; `place` and `path` say where. The message is what is wrong, `remedy` what to do."""

    def __init__(self, what: str, remedy: str, place: Place | None, path: Path = (), value: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy
        self.place = place
        self.path = path
        self.value = value


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document: its data, and the places of its values by path."""

    data: Any
    places: Mapping[Path, Place]
    faults: tuple[SourceInvalid, ...] = ()
    """Duplicate keys and keys that are no text; the data holds the last of each."""

    def place(self, path: Path) -> Place | None:
        """Where `path` stands, or the nearest part of it that is written down."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.places:
                return self.places[path[:end]]
        return None


def read_documents(text: str) -> list[Document]:
    """Every document of a text that is not empty; SourceInvalid when it is no YAML."""
    _check_characters(text)
    loader = _Loader(text)
    documents: list[Document] = []
    try:
        while loader.check_node():
            node = loader.get_node()
            walk = _Walk()
            walk.visit(node, ())
            data = loader.construct_document(node)
            if data is not None:
                documents.append(Document(data, walk.places, tuple(walk.faults)))
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(text, error) from error
    except RecursionError as error:
        raise SourceInvalid("the YAML is nested too deeply", "flatten it", None) from error
    finally:
        loader.dispose()
    return documents


class _Walk:
    """Collects places and faults of one document."""

    def __init__(self) -> None:
        self.places: dict[Path, Place] = {}
        self.faults: list[SourceInvalid] = []
        self._open: set[int] = set()
        self._count = 0

    def visit(self, node: yaml.Node, path: Path) -> None:
        self.places.setdefault(path, _place(node))
        self._count += 1
        if self._count > MAX_VALUES:
            remedy = "write the repeated parts out, or move them into files"
            raise SourceInvalid(f"aliases make more than {MAX_VALUES} values of it", remedy, _place(node), path)
        if isinstance(node, yaml.ScalarNode):
            return
        if id(node) in self._open:
            raise SourceInvalid("an alias refers to a value that holds it", "remove the alias", _place(node), path)
        self._open.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.visit(item, (*path, index))
        elif isinstance(node, yaml.MappingNode):
            self._visit_mapping(node, path)
        self._open.discard(id(node))

    def _visit_mapping(self, node: yaml.MappingNode, path: Path) -> None:
        seen: dict[str, Place] = {}
        for key, value in node.value:
            if key.tag == _MERGE:
                continue
            place = _place(key)
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                self.faults.append(_key_is_no_text(key, path))
                continue
            name = str(key.value)
            here = (*path, name)
            if name in seen:
                what = f"{name!r} is given twice, first in line {seen[name].line}"
                remedy = "keep one of them; the other would be lost silently"
                self.faults.append(SourceInvalid(what, remedy, place, here))
            seen[name] = place
            text = str(value.value) if isinstance(value, yaml.ScalarNode) else None
            self.places[here] = Place(place.line, place.column, text)
            self.visit(value, here)
        for merged in _merged(node):
            self.visit(merged, path)


def _merged(node: yaml.MappingNode) -> Iterator[yaml.Node]:
    """The mappings that `<<` takes over."""
    for key, value in node.value:
        if key.tag == _MERGE:
            yield from value.value if isinstance(value, yaml.SequenceNode) else [value]


def _place(node: yaml.Node) -> Place:
    mark = node.start_mark
    text = str(node.value) if isinstance(node, yaml.ScalarNode) else None
    return Place(mark.line + 1, mark.column + 1, text)


def _key_is_no_text(key: yaml.Node, path: Path) -> SourceInvalid:
    written = str(key.value) if isinstance(key, yaml.ScalarNode) else "a list or mapping"
    kind = key.tag.rsplit(":", 1)[-1]
    return SourceInvalid(
        f"the key {written} is read as {kind}, not as text", f'put it in quotes: "{written}"', _place(key), path
    )


_HINTS = (
    ("mapping values are not allowed", "check the indentation, and put a text that holds ': ' in quotes"),
    ("could not find expected ':'", "write key: value, with a space after the colon, and check the quotes above"),
    ("did not find expected key", "check the indentation of this line and the quotes of the one above"),
    ("did not find expected '-'", "start every element of the list with '- ', all in one column"),
    ("unexpected end of stream", "close the quote or bracket that is open"),
    ("cannot start any token", "put the text in quotes"),
    ("undefined alias", "define the anchor (&name) above, or put a text that starts with * in quotes"),
    ("could not determine a constructor", "remove the tag; plain YAML needs none"),
)


def _syntax_error(text: str, error: yaml.MarkedYAMLError) -> SourceInvalid:
    mark = error.problem_mark or error.context_mark
    what = error.problem or error.context or "it cannot be read"
    lines = text.splitlines()
    # What is missing at the end is reported one line beyond it.
    place = None if mark is None else Place(min(mark.line + 1, max(len(lines), 1)), mark.column + 1)
    if place is not None and mark is not None and mark.line >= len(lines):
        return SourceInvalid("no valid YAML: it ends too early", "close the quote or bracket that is open", place)
    if mark is not None and mark.line < len(lines) and lines[mark.line][mark.column :].startswith("\t"):
        return SourceInvalid("no valid YAML: a tab stands in the indentation", "indent with spaces", place)
    remedy = next((hint for sign, hint in _HINTS if sign in what), "check the indentation, quotes and brackets there")
    return SourceInvalid(f"no valid YAML: {what}", remedy, place)


def _check_characters(text: str) -> None:
    found = yaml.reader.Reader.NON_PRINTABLE.search(text)
    if found is None:
        return
    before = text[: found.start()]
    place = Place(before.count("\n") + 1, len(before) - before.rfind("\n"))
    raise SourceInvalid(f"the control character U+{ord(found.group()):04X} may not stand in YAML", "remove it", place)
