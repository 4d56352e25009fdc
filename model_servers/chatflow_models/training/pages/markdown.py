"""The report of a rehearsal as Markdown. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from chatflow_models.training.examples import Example
from chatflow_models.training.rehearsal import HeldOutTest, Rehearsed
from chatflow_models.training.report import TrainingReport

from . import wording


def markdown(rehearsed: Rehearsed) -> str:
    """The whole report; the confusion matrix and the plots' numbers are in report.json alone."""
    report, test = rehearsed.fitted.report, rehearsed.test
    lines = [
        f"# Intent model {report.version}",
        "",
        f"**{wording.verdict(rehearsed)}**",
        "",
        wording.summary(rehearsed),
        *([] if test is None else _held_out(rehearsed, test)),
        *_cross_validated(report),
        *_section("Warnings", rehearsed.warnings),
        *_section("Everyday questions left out, since they resemble the examples", report.background_left_out),
        *([] if test is None else _mistakes(test, report.threshold)),
        *_section("Examples", [f"{name}: {count}" for name, count in report.examples_per_intent.items()]),
    ]
    return "\n".join(lines) + "\n"


def _held_out(rehearsed: Rehearsed, test: HeldOutTest) -> list[str]:
    basis = wording.basis(test)
    rows = wording.rows(rehearsed, test)
    if test.rival is None:
        table = ["| figure | new |", "|---|---|", *(f"| {title} | {new} |" for title, _, new, _, _ in rows)]
    else:
        table = [f"| figure | new | {wording.rival_name(test)} | difference (95 %) |", "|---|---|---|---|"]
        table += [f"| {title} | {new} | {old} | {change} |" for title, _, new, old, change in rows]
    lines = ["", "## Held-out questions", "", *table]
    return lines if basis is None else [*lines, "", basis]


def _cross_validated(report: TrainingReport) -> list[str]:
    found = report.evaluation
    return [
        "",
        "## The model to use, cross-validated",
        "",
        wording.cross_validation(report),
        "",
        "| figure | value |",
        "|---|---|",
        f"| accuracy | {found.accuracy:.3f} |",
        f"| calibration error | {found.calibration_error:.3f} |",
        f"| coverage above {report.threshold:g} | {found.coverage:.3f} |",
        f"| precision above {report.threshold:g} | {found.precision:.3f} |",
        f"| out-of-scope examples above {report.threshold:g} | {wording.number(found.out_of_scope_leak)} |",
        f"| everyday questions above {report.threshold:g} | {wording.number(report.background_leak)} |",
    ]


def _mistakes(test: HeldOutTest, threshold: float) -> list[str]:
    return _section(
        "Held-out questions that were wrong, the surest first",
        [
            f"{example.text} — {example.intent}, taken for {taken_for} ({confidence:.2f}){_where(example)}"
            for example, taken_for, confidence in wording.mistakes(test.judged, threshold)
        ],
    )


def _where(example: Example) -> str:
    return f", {example.source}" if example.source else ""


def _plain(text: str) -> str:
    """Users' words such that Markdown shows them as they are."""
    return "".join(f"\\{character}" if character in "\\`*[]<>|" else character for character in text)


def _section(title: str, items: Iterable[str]) -> list[str]:
    found = list(items)
    return ["", f"## {title}", "", *(f"- {_plain(item)}" for item in found)] if found else []
