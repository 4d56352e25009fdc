"""The labelled questions of an evaluation, read from questions.jsonl beside the manifest. Called by `evaluate`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chatflow_cli.errors import ManifestUnusable
from chatflow_cli.local.manifest_file import read_text

QUESTIONS_FILE = "questions.jsonl"


@dataclass(frozen=True, slots=True)
class Question:
    """One labelled question. `answers` are the ids of knowledge entries that answer it, the best first."""

    text: str
    intent: str
    answers: tuple[str, ...]
    line: int


def read_questions(path: Path) -> list[Question]:
    """The questions of a file; ManifestUnusable names every line that does not fit."""
    questions: list[Question] = []
    problems: list[str] = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            questions.append(_question(json.loads(line), number))
        except (ValueError, TypeError, KeyError) as error:
            problems.append(
                f'{path}:{number}: {error}; write {{"text": "...", "intent": "...", "answers": ["id", ...]}}'
            )
    if problems:
        raise ManifestUnusable("\n".join(problems))
    if not questions:
        raise ManifestUnusable(f"{path}: it holds no question; write one JSON object a line")
    return questions


def _question(row: Any, number: int) -> Question:
    text, intent, answers = row["text"], row["intent"], row.get("answers", [])
    if not isinstance(text, str) or not text.strip() or not isinstance(intent, str) or not intent:
        raise ValueError("text and intent must be texts that are not empty")
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
        raise ValueError("answers must be a list of ids")
    return Question(text, intent, tuple(answers), number)
