"""The plots of a rehearsal as SVG, from what the models made of the held-out questions. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chatflow_models.training.judgement import Judged

from .svg import Axes, Drawing, percent

WIDTH, HEIGHT = 560.0, 400.0
_QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)
_RELIABILITY_BINS, _HISTOGRAM_BINS = 10, 20


@dataclass(frozen=True, slots=True)
class Subject:
    """One model in a plot."""

    name: str
    style: str
    """Class of the style sheet: new or current."""
    judged: Judged


def reliability(subjects: Sequence[Subject]) -> str:
    """Accuracy of in-scope questions by confidence: on the diagonal a model is as often right as it says."""
    described = "; ".join(f"{subject.name}: {_bins_in_words(subject.judged)}" for subject in subjects)
    drawing = Drawing("reliability", WIDTH, HEIGHT, "Is the confidence right?", described)
    axes = Axes(drawing, 64, 36, WIDTH - 84, HEIGHT - 90)
    axes.frame(_QUARTERS, _QUARTERS, "confidence", "accuracy")
    drawing.line(*axes.at(0, 0), *axes.at(1, 1), "ideal")
    for subject in subjects:
        found = _bins(subject.judged)
        most = max((count for _, _, count in found), default=1)
        drawing.curve([axes.at(confidence, accuracy) for confidence, accuracy, _ in found], f"curve {subject.style}")
        for confidence, accuracy, count in found:
            tip = f"{subject.name}: {count} questions of confidence {confidence:.2f}, {percent(accuracy)} right"
            drawing.dot(*axes.at(confidence, accuracy), 3 + 7 * (count / most) ** 0.5, f"dot {subject.style}", tip)
    _legend(drawing, subjects)
    return drawing.render()


def _bins(judged: Judged) -> list[tuple[float, float, int]]:
    """Mean confidence, accuracy and number of each bin that holds in-scope questions."""
    confidence, right = judged.confidence[judged.is_inside], judged.is_right[judged.is_inside]
    bin_of = np.clip(np.ceil(confidence * _RELIABILITY_BINS).astype(int) - 1, 0, _RELIABILITY_BINS - 1)
    return [
        (float(confidence[bin_of == i].mean()), float(right[bin_of == i].mean()), int((bin_of == i).sum()))
        for i in np.unique(bin_of)
    ]


def _bins_in_words(judged: Judged) -> str:
    return ", ".join(
        f"at confidence {confidence:.2f} {percent(accuracy)} right of {count}"
        for confidence, accuracy, count in _bins(judged)
    )


def confidence_histogram(judged: Judged, threshold: float) -> str:
    """How sure the model is: in-scope questions upwards, right and wrong ones, out-of-scope ones downwards."""
    inside, right = judged.is_inside, judged.is_right
    upper = [_shares(judged, inside & right, inside), _shares(judged, inside & ~right, inside)]
    lower = _shares(judged, ~inside, ~inside)
    top, bottom = _ceiling((upper[0] + upper[1]).max()), _ceiling(lower.max()) if (~inside).any() else 0.0
    passing = [float((judged.confidence[kind] > threshold).mean()) if kind.any() else 0.0 for kind in (inside, ~inside)]
    drawing = Drawing(
        "histogram",
        WIDTH,
        HEIGHT,
        "How sure is the model?",
        f"Above {threshold:g} are {percent(passing[0])} of {inside.sum()} in-scope questions and {percent(passing[1])}"
        f" of {(~inside).sum()} out-of-scope ones.",
    )
    axes = Axes(drawing, 64, 36, WIDTH - 84, HEIGHT - 90, y_range=(-bottom, top))
    ticks = [value for value in (-bottom, -bottom / 2, 0.0, top / 2, top) if value or bottom in (0.0, bottom)]
    axes.frame(_QUARTERS, sorted({round(tick, 6) for tick in ticks}), "confidence in the best intent", "questions")
    step = 1 / _HISTOGRAM_BINS
    for i in range(_HISTOGRAM_BINS):
        left, width = axes.x(i * step) + 1, axes.x((i + 1) * step) - axes.x(i * step) - 2
        middle = upper[0][i]
        _bar(axes, left, width, 0, middle, "right")
        _bar(axes, left, width, middle, middle + upper[1][i], "wrong")
        _bar(axes, left, width, -lower[i], 0, "outside")
    drawing.line(axes.left, axes.y(0), axes.left + axes.width, axes.y(0), "base")
    _threshold(axes, threshold)
    _key(drawing, [("in scope, right", "right"), ("in scope, wrong", "wrong"), ("out of scope", "outside")])
    return drawing.render()


def _shares(judged: Judged, chosen: NDArray[np.bool_], of: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(bins,) share of the questions `of` that are `chosen` and in each bin."""
    counts = np.histogram(judged.confidence[chosen], bins=_HISTOGRAM_BINS, range=(0, 1))[0]
    return np.asarray(counts / max(int(of.sum()), 1), dtype=np.float64)


def _ceiling(value: float) -> float:
    """The next round share above a value, of which half is round too."""
    return next((share for share in (0.1, 0.2, 0.4, 0.6, 0.8) if value <= share), 1.0)


def _bar(axes: Axes, left: float, width: float, low: float, high: float, style: str) -> None:
    if high > low:
        axes.drawing.box(left, axes.y(high), width, axes.y(low) - axes.y(high), style)


def coverage_precision(subjects: Sequence[Subject], threshold: float) -> str:
    """Of the in-scope questions acted on, how many are right, as the threshold falls and more are acted on."""
    curves = [(subject, _sweep(subject.judged)) for subject in subjects]
    lowest = min((precision for _, points in curves for _, precision in points), default=0.0)
    floor = max(0.0, np.floor(lowest * 10 - 1e-9) / 10)
    marks = [(subject, _at(subject.judged, threshold)) for subject in subjects]
    described = "; ".join(
        f"{subject.name}: at {threshold:g} coverage {percent(mark[0])}, precision {percent(mark[1])}"
        for subject, mark in marks
    )
    drawing = Drawing("coverage", WIDTH, HEIGHT, "What does the threshold buy?", described)
    axes = Axes(drawing, 64, 36, WIDTH - 84, HEIGHT - 90, y_range=(float(floor), 1.0))
    axes.frame(_QUARTERS, [float(tick) for tick in np.linspace(floor, 1, 5)], "coverage", "precision")
    for subject, points in curves:
        drawing.curve([axes.at(*point) for point in points], f"curve {subject.style}")
    for subject, mark in marks:
        tip = f"{subject.name} at {threshold:g}: coverage {percent(mark[0])}, precision {percent(mark[1])}"
        drawing.dot(*axes.at(mark[0], max(mark[1], float(floor))), 6, f"dot {subject.style}", tip)
    _legend(drawing, subjects, f"dots: at {threshold:g}")
    return drawing.render()


def _sweep(judged: Judged) -> list[tuple[float, float]]:
    """Coverage and precision after each question, the surest first; some two hundred points."""
    confidence, right = judged.confidence[judged.is_inside], judged.is_right[judged.is_inside]
    ordered = right[np.argsort(-confidence, kind="stable")]
    count = len(ordered)
    precision = np.cumsum(ordered) / np.arange(1, count + 1)
    # The first few jump between 0 and 1 and would decide the scale.
    places = np.unique(np.linspace(min(count, max(10, count // 50)) - 1, count - 1, 200).astype(int))
    return [(float((place + 1) / count), float(precision[place])) for place in places]


def _at(judged: Judged, threshold: float) -> tuple[float, float]:
    found = judged.evaluation(threshold)
    return found.coverage, found.precision


def _threshold(axes: Axes, threshold: float) -> None:
    across = axes.x(threshold)
    axes.drawing.line(across, axes.top, across, axes.top + axes.height, "threshold")
    axes.drawing.text(across - 6, axes.top + 14, f"threshold {threshold:g}", "tick", anchor="end")


def _legend(drawing: Drawing, subjects: Sequence[Subject], remark: str = "") -> None:
    _key(drawing, [(subject.name, subject.style) for subject in subjects], remark)


def _key(drawing: Drawing, entries: Sequence[tuple[str, str]], remark: str = "") -> None:
    """What the colours mean, above the plot."""
    across = 64.0
    for name, style in entries:
        drawing.box(across, 12, 12, 12, style)
        drawing.text(across + 18, 22, name, "key")
        across += 18 + 7.2 * len(name) + 22
    if remark:
        drawing.text(across, 22, remark, "tick")
