"""Question-answer pairs from YAML, JSONL and CSV files. `sources` calls it; every problem is reported, not the first.

A field is given like this, in each of the formats: id, intent, topic, question, similar, answer, url.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches

import msgspec
import yaml
from chatflow_api.v1alpha1 import OUT_OF_SCOPE

from chatflow_runtime.adapters.knowledge.entries import INTENT, Entry, fingerprint

FIELDS = ("id", "intent", "topic", "question", "similar", "answer", "url")
QUESTION_LENGTH = 500
ANSWER_LENGTH = 8000
SIMILAR_COUNT = 100

_ID = re.compile(r"[^\s/#]{1,100}")
_URL = re.compile(r"https?://\S{1,1990}")
_SPACE = re.compile(r"\s+")

Raw = Mapping[object, object]


class PairReader:
    """Reads the pairs of one file; problems are added to `problems` as whole lines."""

    def __init__(self, path: str, problems: list[str]) -> None:
        self._path = path
        self._problems = problems

    def read(self, text: str, ending: str) -> list[tuple[int, Entry]]:
        """The file's pairs with their number (from 1; the line of a JSONL file, the row of a CSV file)."""
        formats = {"jsonl": self._jsonl, "csv": self._csv}
        pairs: list[tuple[int, Entry]] = []
        for number, raw in formats.get(ending, self._yaml)(text):
            before = len(self._problems)
            entry = _Fields(raw, f"{self._path}, entry {number}", self._problems).entry(self._path)
            if len(self._problems) == before:
                pairs.append((number, entry))
        return pairs

    def _yaml(self, text: str) -> Iterator[tuple[int, Raw]]:
        try:
            content = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
        # PyYAML lets a date that does not exist, and nesting without end, through as what they are to Python.
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            self._problems.append(f"{self._path}: this is not valid YAML ({_squeeze(str(error))})")
            return
        if not isinstance(content, list):
            self._problems.append(
                f"{self._path}: found {_named(content)} where a list of entries was expected;"
                " begin each entry with '- question:'"
            )
            return
        yield from self._mappings(enumerate(content, 1))

    def _jsonl(self, text: str) -> Iterator[tuple[int, Raw]]:
        yield from self._mappings(self._json_lines(text))

    def _json_lines(self, text: str) -> Iterator[tuple[int, object]]:
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                try:
                    yield number, msgspec.json.decode(line)
                except (msgspec.DecodeError, RecursionError) as error:
                    self._problems.append(
                        f"{self._path}, entry {number}: this line is no JSON object ({error});"
                        " write one entry on each line"
                    )

    def _csv(self, text: str) -> Iterator[tuple[int, Raw]]:
        rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        try:
            for number, row in enumerate(rows, 1):
                if None in row:
                    self._problems.append(
                        f"{self._path}, entry {number}: the row has more cells than the header;"
                        ' put cells that hold a comma in double quotes (")'
                    )
                else:
                    yield number, {name: _csv_value(name, cell) for name, cell in row.items() if cell}
        except csv.Error as error:
            self._problems.append(f"{self._path}, line {rows.line_num}: this is not valid CSV ({error})")

    def _mappings(self, entries: Iterator[tuple[int, object]]) -> Iterator[tuple[int, Raw]]:
        for number, raw in entries:
            if isinstance(raw, dict):
                yield number, raw
            else:
                self._problems.append(
                    f"{self._path}, entry {number}: found {_named(raw)} where question: and answer: were expected"
                )


class _Fields:
    """The fields of one raw entry, checked one by one."""

    def __init__(self, raw: Raw, where: str, problems: list[str]) -> None:
        self._raw = raw
        self._where = where
        self._problems = problems

    def entry(self, source: str) -> Entry:
        """The pair; it is valid only if no problem was added."""
        self._refuse_unknown()
        question = _SPACE.sub(" ", self._text("question", QUESTION_LENGTH, is_required=True) or "")
        similar = self._similar()
        return Entry(
            id=self._matching("id", _ID, "no spaces, slashes or '#', at most 100 characters")
            or f"qa-{fingerprint(question)}",
            title=question,
            text=self._text("answer", ANSWER_LENGTH, is_required=True) or "",
            kind="pair",
            source=source,
            variants=tuple(dict.fromkeys((question, *similar))),
            url=self._matching("url", _URL, "it begins with http:// or https:// and holds no spaces"),
            intent=self._intent(),
            topic=self._text("topic", QUESTION_LENGTH, is_required=False),
        )

    def _refuse_unknown(self) -> None:
        for name in self._raw:
            if name not in FIELDS:
                close = get_close_matches(str(name), FIELDS, n=1)
                remedy = f"did you mean {close[0]}?" if close else f"the fields are {', '.join(FIELDS)}"
                self._problem(f"{str(name)[:40]!r} is no field of an entry; {remedy}")

    def _text(self, name: str, length: int, *, is_required: bool) -> str | None:
        value = self._raw.get(name)
        if value is None:
            if is_required:
                self._problem(f"{name} is missing; every entry has a question and an answer")
            return None
        return self._checked(name, value, length)

    def _checked(self, name: str, value: object, length: int) -> str | None:
        if not isinstance(value, str):
            self._problem(f"{name} is {_named(value)}, not text; put it in quotes")
            return None
        text = value.strip()
        if not text:
            self._problem(f"{name} is empty; write it or leave the field out")
        elif len(text) > length:
            self._problem(f"{name} has {len(text)} characters, beginning {text[:30]!r}; at most {length} are allowed")
        else:
            return text
        return None

    def _similar(self) -> list[str]:
        value = self._raw.get("similar")
        if value is None:
            return []
        if not isinstance(value, list):
            self._problem(f"similar is {_named(value)}, not a list; write [first wording, second wording]")
            return []
        if len(value) > SIMILAR_COUNT:
            self._problem(f"similar has {len(value)} wordings; at most {SIMILAR_COUNT} are allowed")
        texts = (self._checked(f"similar {number}", item, QUESTION_LENGTH) for number, item in enumerate(value, 1))
        return [_SPACE.sub(" ", text) for text in texts if text is not None]

    def _matching(self, name: str, pattern: re.Pattern[str], rule: str) -> str | None:
        value = self._text(name, 2000, is_required=False)
        if value is not None and not pattern.fullmatch(value):
            self._problem(f"{name} is {value[:60]!r}; {rule}")
        return value

    def _intent(self) -> str | None:
        intent = self._matching("intent", INTENT, "it is lower-case letters, digits, '_' and '-', at most 63 of them")
        if intent == OUT_OF_SCOPE:
            self._problem(
                f"intent is {OUT_OF_SCOPE!r}, which is kept for questions that must not be answered;"
                " list the question under models.intent.examples instead"
            )
        return intent

    def _problem(self, text: str) -> None:
        self._problems.append(f"{self._where}: {text}")


def _csv_value(name: str | None, cell: str) -> object:
    """A cell; `similar` holds several wordings, separated by `|` or line ends."""
    if name == "similar":
        return [part for part in (part.strip() for part in re.split(r"[|\n]", cell)) if part]
    return cell


def _named(value: object) -> str:
    """A value as a message shows it: its kind and its beginning."""
    kinds = {dict: "a mapping", list: "a list", str: "text", bool: "a truth value", type(None): "nothing"}
    kind = kinds.get(type(value), "a number" if isinstance(value, int | float) else f"a {type(value).__name__}")
    return kind if value is None else f"{kind} ({str(value)[:40]!r})"


def _squeeze(text: str) -> str:
    return _SPACE.sub(" ", text).strip()
