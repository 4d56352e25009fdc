"""The intent examples in files: written by hand, or questions that the bot kept and a person has labelled.

    YAML     intent: [texts]
    JSONL    {"text": "...", "intent": "..."}
             {"kind": "labelling", "fields": {"text": "..."}, "label": "..."}     the worker's record, with a label
    CSV      the columns text and intent, or text and label; the case of their names does not matter

`label` is the column of a person: where it is there, `intent` is only what the bot took the question for, and a row
without a label is left out. A table of what the bot took questions for (`confidence`) without such a column is refused.
Called by `references`, the build Job and `train`.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from chatflow_api.manifest_source import SourceInvalid, read_documents

from chatflow_cli.local.content import ContentFile

_LABELLING = "labelling"


@dataclass(frozen=True, slots=True)
class Example:
    """A labelled question. `source` is the file and line it stands in, for messages."""

    text: str
    intent: str
    source: str = ""


def read_examples(files: Sequence[ContentFile], problems: list[str], remarks: list[str]) -> Iterator[Example]:
    """The examples of all files, in order.

    What cannot be read goes to `problems`, one line each; to `remarks` goes how many questions have no label yet.
    """
    for file in files:
        reader = _Reader(file.path, problems)
        read = reader.by_ending.get(PurePosixPath(file.path).suffix.lower())
        if read is None:
            problems.append(f"{file.path}: examples are read from .yaml, .jsonl and .csv; rename it or leave it out")
            continue
        try:
            text = file.content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            problems.append(f"{file.path}: byte {error.start} is not UTF-8; save the file as UTF-8")
            continue
        before = len(problems)
        yield from read(text)
        if not reader.rows and len(problems) == before:
            remarks.append(f"{file.path}: there are no questions in it")
        if reader.unlabelled:
            remarks.append(f"{file.path}: {reader.unlabelled} of {reader.rows} questions have no label; left out")


class _Reader:
    """Reads one file."""

    def __init__(self, path: str, problems: list[str]) -> None:
        self._path, self._problems = path, problems
        self.rows = self.unlabelled = 0
        self.by_ending: Mapping[str, Callable[[str], Iterator[Example]]] = {
            ".yaml": self._from_yaml,
            ".yml": self._from_yaml,
            ".jsonl": self._from_jsonl,
            ".csv": self._from_csv,
        }

    def _from_yaml(self, text: str) -> Iterator[Example]:
        try:
            documents = read_documents(text)
        except SourceInvalid as error:
            self._problem(error.place.line if error.place else None, f"{error.what}; {error.remedy}")
            return
        for document in documents:
            for fault in document.faults:
                self._problem(fault.place.line if fault.place else 1, f"{fault.what}; {fault.remedy}")
            if not isinstance(document.data, dict):
                self._problem(None, "it must map intents to lists of texts; write 'intent:' and '- text' below it")
                continue
            for intent, texts in document.data.items():
                if not isinstance(intent, str):
                    continue
                if intent != intent.strip() or not intent or not intent.isprintable():
                    place = document.place((intent,))
                    self._problem(
                        place.line if place else 1, f"{intent!r} is no name of an intent; write one on one line"
                    )
                    continue
                if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
                    place = document.place((intent,))
                    what = f"{intent} must be a list of texts; put numbers and empty texts in quotes, or remove them"
                    self._problem(place.line if place else 1, what)
                    continue
                self.rows += len(texts)
                for index, example in enumerate(texts):
                    place = document.place((intent, index))
                    yield Example(example, intent, f"{self._path}:{place.line if place else 1}")

    def _from_jsonl(self, text: str) -> Iterator[Example]:
        # Texts may hold line separators of Unicode, at which splitlines would cut.
        for number, line in enumerate(text.split("\n"), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                self._problem(number, f"no JSON: {error.msg} at column {error.colno}; write one object a line")
                continue
            except (ValueError, RecursionError):
                # A number of thousands of digits, or brackets as deep.
                self._problem(number, "this cannot be read as JSON; write one object a line")
                continue
            yield from self._row(_named(row) if isinstance(row, dict) else {}, number)

    def _from_csv(self, text: str) -> Iterator[Example]:
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        try:
            reader.fieldnames = [name.strip().casefold() for name in reader.fieldnames or ()]
            if not self._has_columns(reader.fieldnames):
                return
            last = reader.line_num
            for row in reader:
                # A cell may hold line breaks; the row is where it begins.
                line, last = last + 1, reader.line_num
                if None in row:
                    what = 'the row has more cells than the header; put cells that hold a comma in double quotes (")'
                    self._problem(line, what)
                else:
                    yield from self._row(row, line)
        except csv.Error as error:
            self._problem(reader.line_num, f"this is not valid CSV ({error}); save it as CSV anew")

    def _has_columns(self, names: Sequence[str]) -> bool:
        """Whether the columns are there that a row needs; said once, not for each row."""
        if "text" in names and ("label" in names or ("intent" in names and "confidence" not in names)):
            return True
        if "text" in names and "intent" in names:
            what = "intent is what the bot took the questions for; add a column label, which a person fills"
        else:
            found = ", ".join(map(repr, names)) or "nothing"
            what = f"the columns text and label, or text and intent, are needed, with commas between; found {found}"
        self._problem(1, what)
        return False

    def _row(self, row: Mapping[str, Any], line: int) -> Iterator[Example]:
        self.rows += 1
        text, intent = row.get("text"), row.get("intent")
        fields = row.get("fields")
        if isinstance(fields, dict) and "kind" in row:
            if row["kind"] != _LABELLING:
                self._problem(line, f"a record of kind {row['kind']!r} holds no question; leave it out")
                return
            text, intent = fields.get("text"), row.get("label")
            is_unlabelled = _is_blank(intent)
        else:
            is_unlabelled = "label" in row and _is_blank(row["label"])
            intent = row.get("label", intent)
        if is_unlabelled:
            self.unlabelled += 1
        elif "confidence" in row and "label" not in row:
            self._problem(line, "intent is what the bot took the question for; add label, which a person fills")
        elif isinstance(intent, str) and not intent.strip().isprintable():
            self._problem(line, f"the label {intent.strip()!r} is no name; write letters, digits and signs on one line")
        elif isinstance(text, str) and text.strip() and isinstance(intent, str) and intent.strip():
            yield Example(text, intent.strip(), f"{self._path}:{line}")
        else:
            wanted = "text and label" if "label" in row else "text and intent"
            self._problem(line, f"the columns {wanted} are needed, both with a value; add them")

    def _problem(self, line: int | None, what: str) -> None:
        where = self._path if line is None else f"{self._path}:{line}"
        self._problems.append(f"{where}: {what}")


def _named(row: dict[str, Any]) -> dict[str, Any]:
    return {name.strip().casefold(): value for name, value in row.items()}


def _is_blank(label: Any) -> bool:
    return label is None or (isinstance(label, str) and not label.strip())
