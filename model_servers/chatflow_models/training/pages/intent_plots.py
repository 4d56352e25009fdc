"""The two plots of a rehearsal that have a line an intent: confusions and accuracies. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from chatflow_models.training.judgement import Judged

from .plots import WIDTH, Subject
from .svg import Drawing, breadth, percent, shortened

MOST_CONFUSED, MOST_BARS = 12, 40
_NAME_LIMIT, _CELL, _ROW = 170.0, 34.0, 22.0


def heat_map(judged: Judged) -> str | None:
    """The most confused intents, actual ones down, predicted ones across; None where nothing is confused."""
    actual = [question.intent for question in judged.questions]
    counts = Counter(zip(actual, judged.predicted, strict=True))
    wrong: Counter[str] = Counter()
    for (intent, found), count in counts.items():
        if intent != found:
            wrong[intent] += count
            wrong[found] += count
    if not wrong:
        return None
    names = sorted(sorted(wrong), key=lambda name: -wrong[name])[:MOST_CONFUSED]
    left = 24 + max(breadth(shortened(name, _NAME_LIMIT)) for name in names)
    size = _CELL * len(names)
    worst = [(count, *pair) for pair, count in counts.items() if pair[0] != pair[1]]
    described = "; ".join(f"{a} taken for {b}: {count}" for count, a, b in sorted(worst, reverse=True)[:8])
    drawing = Drawing(
        # The last name across leans out by about half its breadth.
        "confusions",
        max(WIDTH, left + size + left / 2),
        left + size + 44,
        "What is taken for what?",
        described,
    )
    most = max(count for count, _, _ in worst)
    for row, name in enumerate(names):
        down = left + row * _CELL
        drawing.text(left - 8, down + 22, shortened(name, _NAME_LIMIT), "name", anchor="end")
        drawing.text(left + row * _CELL + 22, left - 8, shortened(name, _NAME_LIMIT), "name", turn=-60)
        for column, other in enumerate(names):
            _cell(drawing, left + column * _CELL, down, counts[name, other], most, is_right=row == column)
    drawing.text(left + size / 2, left + size + 28, "predicted, across; actual, down", "axis", anchor="middle")
    return drawing.render()


def _cell(drawing: Drawing, x: float, y: float, count: int, most: int, *, is_right: bool) -> None:
    drawing.box(x, y, _CELL - 2, _CELL - 2, "empty")
    if is_right:
        drawing.box(x, y, _CELL - 2, _CELL - 2, "right", opacity=0.25)
    elif count:
        drawing.box(x, y, _CELL - 2, _CELL - 2, "wrong", opacity=0.2 + 0.6 * count / most)
    if count:
        drawing.text(x + (_CELL - 2) / 2, y + 21, str(count), "count", anchor="middle")


@dataclass(frozen=True, slots=True)
class _Accuracy:
    """How many held-out questions an intent has, and the share that each model gets right."""

    intent: str
    count: int
    shares: tuple[float, ...]


def intent_bars(subjects: Sequence[Subject]) -> str:
    """Accuracy by intent, the worst first: a bar for the first model, a mark for the second."""
    found = _accuracies([subject.judged for subject in subjects])
    shown = found[:MOST_BARS]
    left = 24 + max(breadth(shortened(line.intent, _NAME_LIMIT)) for line in shown)
    width = WIDTH - left - 110
    described = "; ".join(f"{line.intent}: {percent(line.shares[0])} of {line.count}" for line in shown)
    drawing = Drawing("intents", WIDTH, 40 + _ROW * len(shown) + 8, "Which intents are hard?", described)
    across = left
    for subject in subjects:
        drawing.box(across, 8, 12, 12, subject.style)
        drawing.text(across + 18, 18, subject.name, "key")
        across += 40 + 7.2 * len(subject.name)
    for row, line in enumerate(shown):
        down = 36 + row * _ROW
        drawing.text(left - 8, down + 13, shortened(line.intent, _NAME_LIMIT), "name", anchor="end")
        drawing.box(left, down + 2, width, _ROW - 6, "empty")
        drawing.box(left, down + 2, width * line.shares[0], _ROW - 6, subjects[0].style)
        for subject, share in zip(subjects[1:], line.shares[1:], strict=True):
            place = left + width * share
            drawing.line(place, down, place, down + _ROW - 2, f"mark {subject.style}")
        drawing.text(left + width + 8, down + 13, f"{percent(line.shares[0])} of {line.count}", "tick")
    return drawing.render()


def _accuracies(judged: Sequence[Judged]) -> list[_Accuracy]:
    counts = Counter(question.intent for question in judged[0].questions)
    right = [
        Counter(question.intent for question, is_right in zip(one.questions, one.is_right, strict=True) if is_right)
        for one in judged
    ]
    lines = [_Accuracy(intent, count, tuple(one[intent] / count for one in right)) for intent, count in counts.items()]
    return sorted(lines, key=lambda line: (line.shares[0], line.intent))
