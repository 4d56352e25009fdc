"""The sentences that every form of the report shares. Pure."""

from __future__ import annotations

from typing import assert_never

import numpy as np
from chatflow_api.v1alpha1 import OUT_OF_SCOPE

from chatflow_models.training.comparison import Compared, Difference, Verdict
from chatflow_models.training.examples import Example
from chatflow_models.training.judgement import Judged
from chatflow_models.training.rehearsal import MOST_KNOWN, Basis, HeldOutTest, Rehearsed, Rival
from chatflow_models.training.report import TrainingReport

FIGURES = (
    ("accuracy", "accuracy", "in-scope questions whose most probable class is right", True),
    ("coverage", "coverage above {threshold:g}", "in-scope questions that would be acted on", True),
    ("precision", "precision above {threshold:g}", "of those, the ones whose intent is right", True),
    ("calibration_error", "calibration error", "gap between confidence and accuracy, 15 bins", False),
    ("out_of_scope_leak", "out-of-scope leak", "out-of-scope questions above {threshold:g}", False),
)
"""Field of Evaluation, title, meaning, and whether more is better."""
MISTAKES = 30


def verdict(rehearsed: Rehearsed) -> str:
    """One or two sentences on whether to use the new model."""
    test = rehearsed.test
    if test is None:
        return "Nothing could be held out, so the model is untested; the cross-validated figures are all there is."
    found = test.judged.evaluation(rehearsed.settings.threshold)
    inside = int(test.judged.is_inside.sum())
    if test.rival is None:
        return f"The new model gets {_share(found.accuracy)} of {inside} held-out in-scope questions right."
    beside = "" if is_open(test.rival) else _beside(test.rival.compared)
    return f"{_compared(test.rival, test.judged, inside)}{beside}"


def is_open(rival: Rival) -> bool:
    """Whether the test says nothing of the current model, whatever its figures are."""
    if rival.basis is Basis.DOUBTFUL:
        return rival.compared.verdict is not Verdict.BETTER
    return rival.basis is Basis.STAND_IN and (rival.known_share or 0) < MOST_KNOWN


def _compared(rival: Rival, new: Judged, inside: int) -> str:
    if rival.basis is Basis.SAME_EXAMPLES:
        return "No difference to show: the current model was trained on the same examples."
    compared = rival.compared
    change = compared.differences["accuracy"]
    ours, theirs = (int((judged.is_right & judged.is_inside).sum()) for judged in (new, rival.judged))
    counts = f"{ours} of {inside} held-out in-scope questions right against {theirs}{_interval(change)}"
    if rival.basis is Basis.STAND_IN and is_open(rival):
        return f"Nothing can be said of the current model, since its stand-in knows too little of it: {counts}."
    match compared.verdict:
        case Verdict.BETTER:
            sure = " all the same" if rival.basis is Basis.DOUBTFUL else ""
            return f"The new model is better{sure} by {_points(change)} points of accuracy: {counts}."
        case Verdict.WORSE | Verdict.NO_DIFFERENCE if rival.basis is Basis.DOUBTFUL:
            return f"Nothing can be said: the current model may know the answers by heart; {counts}."
        case Verdict.WORSE:
            return f"The new model is worse by {_points(change)} points of accuracy: {counts}."
        case Verdict.NO_DIFFERENCE:
            return f"No difference shown: {counts}."
        case _:
            assert_never(compared.verdict)


def _beside(compared: Compared) -> str:
    """What else clearly changed."""
    found = []
    for name, title, _, is_more_better in FIGURES[1:]:
        change = compared.differences[name]
        if change.is_shown and change.new is not None and change.current is not None:
            is_better = (change.new > change.current) == is_more_better
            found.append(f"{title.partition(' above')[0]} is {'better' if is_better else 'worse'}")
    return f" Beside that, {', '.join(found)}." if found else ""


def basis(test: HeldOutTest) -> str | None:
    """What was tested as the current model, and how far to trust it; None without one."""
    rival = test.rival
    if rival is None:
        return None
    total = len(test.judged.questions)
    match rival.basis:
        case Basis.ITSELF:
            return f"The current model, {rival.version}, was trained on none of the {total} held-out questions."
        case Basis.STAND_IN:
            return (
                f"The current model, {rival.version}, was trained on {rival.seen} of the {total} held-out questions and"
                " would look better than it is. In its place stands a model of its own examples without them:"
                f" {rival.known_share:.0%} of its examples are among the given ones, with today's labels."
            )
        case Basis.SAME_EXAMPLES:
            return f"The current model, {rival.version}, learned the same examples, so there is nothing to compare."
        case Basis.DOUBTFUL:
            known = (
                "does not say what it was trained on and may have learned held-out questions"
                if rival.seen is None
                else f"was trained on {rival.seen} of the {total} held-out questions"
            )
            return (
                f"The current model, {rival.version}, {known}: its figures may be better than it is. Only a new model"
                " that wins nevertheless says something."
            )
        case _:
            assert_never(rival.basis)


def rival_name(test: HeldOutTest) -> str:
    """The head of the column with the figures of what was tested as the current model; empty without one."""
    if test.rival is None:
        return ""
    return "stand-in" if test.rival.basis is Basis.STAND_IN else "current"


def rows(rehearsed: Rehearsed, test: HeldOutTest) -> list[tuple[str, str, str, str, str]]:
    """Title, meaning, new, current, and difference with its interval, of every figure of the test."""
    threshold = rehearsed.settings.threshold
    found = test.judged.evaluation(threshold)
    table = []
    for name, title, meaning, _ in FIGURES:
        change = None if test.rival is None else test.rival.compared.differences[name]
        table.append(
            (
                title.format(threshold=threshold),
                meaning.format(threshold=threshold),
                number(getattr(found, name)),
                "" if change is None else number(change.current),
                "" if change is None else _signed(change),
            )
        )
    return table


def held_out_rows(rehearsed: Rehearsed) -> list[tuple[str, str, str, str]]:
    """The lines of a table without meanings, its heads first; none where nothing was held out."""
    if rehearsed.test is None:
        return []
    test = rehearsed.test
    heads = ("", "new", rival_name(test), "difference (95 %)" if test.rival else "")
    return [heads, *((title, new, old, change) for title, _, new, old, change in rows(rehearsed, test))]


def mistakes(judged: Judged, threshold: float) -> list[tuple[Example, str, float]]:
    """Question, what it was taken for and how surely: those wrong with the most confidence first.

    Out-of-scope questions count when they would be acted on.
    """
    wrong = np.flatnonzero(~judged.is_right & (judged.is_inside | (judged.confidence > threshold)))
    order = wrong[np.argsort(-judged.confidence[wrong], kind="stable")][:MISTAKES]
    return [(judged.questions[i], judged.predicted[i], float(judged.confidence[i])) for i in order]


def summary(rehearsed: Rehearsed) -> str:
    """What was trained on what, in one line."""
    report = rehearsed.fitted.report
    intents = len(report.examples_per_intent.keys() - {OUT_OF_SCOPE})
    test = rehearsed.test
    held = f"; {len(test.judged.questions)} held out for the test (seed {rehearsed.settings.seed})" if test else ""
    return (
        f"{sum(report.examples_per_intent.values())} examples of {intents} intents, encoder {report.encoder}{held}."
        " The model itself was trained on everything."
    )


def cross_validation(report: TrainingReport) -> str:
    """What the cross-validated figures are, and what makes them a little better than those of held-out questions."""
    return (
        f"Each example predicted by a model that saw neither it nor a near-duplicate: {report.folds} folds,"
        f" {report.training_s:.1f} s. The calibration's few numbers are fitted on the same predictions, so its error"
        " is a little larger on others."
    )


def number(value: float | None) -> str:
    """A figure with three places."""
    return "none given" if value is None else f"{value:.3f}"


def _signed(change: Difference) -> str:
    if change.new is None or change.current is None or change.low is None or change.high is None:
        return ""
    return f"{change.new - change.current:+.3f} ({change.low:+.3f} to {change.high:+.3f})"


def _share(value: float) -> str:
    return f"{value:.1%}"


def _points(change: Difference) -> str:
    # The words say whether it is more or less; the verdict and the figure have the same sign.
    return f"{100 * abs((change.new or 0) - (change.current or 0)):.1f}"


def _interval(change: Difference) -> str:
    if change.low is None or change.high is None:
        return ""
    return f", a difference of {100 * change.low:+.1f} to {100 * change.high:+.1f} points at 95 %"
