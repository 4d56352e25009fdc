"""The report of a rehearsal as one HTML file: no script, nothing from the network. Pure but for its style sheet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from html import escape
from importlib.resources import files

from chatflow_models.training.rehearsal import Basis, HeldOutTest, Rehearsed
from chatflow_models.training.report import TrainingReport

from . import intent_plots, plots, wording

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def html_page(rehearsed: Rehearsed) -> str:
    """The whole page. Texts of users and names of intents appear as they are."""
    report, test = rehearsed.fitted.report, rehearsed.test
    title = f"Intent model {report.version}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="verdict {_tone(test)}">{escape(wording.verdict(rehearsed))}</p>',
        f'<p class="soft">{escape(wording.summary(rehearsed))}</p>',
        *([] if test is None else _held_out(rehearsed, test)),
        *_cross_validated(report),
        *_listed("Warnings", rehearsed.warnings),
        *_listed("Everyday questions left out, since they resemble the examples", report.background_left_out),
        *([] if test is None else _mistakes(test, report.threshold)),
        "<h2>Examples</h2>",
        _table(("intent", "examples"), [(name, str(count)) for name, count in report.examples_per_intent.items()], 1),
    ]
    return _PAGE.format(title=escape(title), style=_style(), body="\n".join(parts))


@cache
def _style() -> str:
    return files(__package__).joinpath("report.css").read_text(encoding="utf-8")


def _tone(test: HeldOutTest | None) -> str:
    if test is None or test.rival is None or test.rival.basis is Basis.SAME_EXAMPLES or wording.is_open(test.rival):
        return ""
    return test.rival.compared.verdict.value.split()[0]


def _held_out(rehearsed: Rehearsed, test: HeldOutTest) -> list[str]:
    rows = wording.rows(rehearsed, test)
    heads = ["figure", "what it is", "new"]
    if test.rival is not None:
        heads += [wording.rival_name(test), "difference (95 %)"]
    basis = wording.basis(test)
    return [
        "<h2>Held-out questions</h2>",
        _table(heads, [row[: len(heads)] for row in rows], 2),
        *([] if basis is None else [f"<p>{escape(basis)}</p>"]),
        *_plots(test, rehearsed.settings.threshold),
    ]


def _plots(test: HeldOutTest, threshold: float) -> list[str]:
    subjects = [plots.Subject("new model", "new", test.judged)]
    if test.rival is not None and test.rival.basis is not Basis.SAME_EXAMPLES:
        name = "stand-in for the current model" if test.rival.basis is Basis.STAND_IN else "current model"
        subjects.append(plots.Subject(name, "current", test.rival.judged))
    heat_map = intent_plots.heat_map(test.judged)
    return [
        '<div class="plots">',
        _figure(
            "Is the confidence right?",
            "In-scope questions. On the dashed line a model is right as often as it says; large dots are many"
            " questions.",
            plots.reliability(subjects),
        ),
        _figure(
            "How sure is the model?",
            "In-scope questions upwards, out-of-scope ones downwards, each as a share of its kind. Right of the"
            " threshold the bot acts.",
            plots.confidence_histogram(test.judged, threshold),
        ),
        _figure(
            "What does the threshold buy?",
            "A lower threshold acts on more in-scope questions, of which fewer are right.",
            plots.coverage_precision(subjects, threshold),
        ),
        _figure("Which intents are hard?", "Accuracy by intent, the worst first.", intent_plots.intent_bars(subjects)),
        *(
            []
            if heat_map is None
            else [_figure("What is taken for what?", "The most confused intents of the new model.", heat_map)]
        ),
        "</div>",
    ]


def _cross_validated(report: TrainingReport) -> list[str]:
    found, threshold = report.evaluation, f"{report.threshold:g}"
    rows = [
        ("accuracy", wording.number(found.accuracy)),
        ("calibration error", wording.number(found.calibration_error)),
        (f"coverage above {threshold}", wording.number(found.coverage)),
        (f"precision above {threshold}", wording.number(found.precision)),
        (f"out-of-scope examples above {threshold}", wording.number(found.out_of_scope_leak)),
        (f"everyday questions above {threshold}", wording.number(report.background_leak)),
    ]
    told = wording.cross_validation(report)
    return [
        "<h2>The model to use, cross-validated</h2>",
        f'<p class="soft">{escape(told)}</p>',
        _table(("figure", "value"), rows, 1),
    ]


def _mistakes(test: HeldOutTest, threshold: float) -> list[str]:
    rows = [
        (example.text, example.intent, taken_for, f"{confidence:.2f}", example.source)
        for example, taken_for, confidence in wording.mistakes(test.judged, threshold)
    ]
    if not rows:
        return []
    heads = ("question", "intent", "taken for", "confidence", "stands in")
    return ["<h2>Held-out questions that were wrong, the surest first</h2>", _table(heads, rows, 3, 4)]


def _table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], first_number: int, end_number: int | None = None
) -> str:
    """A table; the columns from `first_number` to before `end_number` are figures."""
    numbers = range(first_number, len(heads) if end_number is None else end_number)

    marked = ' class="number"'

    def cells(tag: str, texts: Sequence[str]) -> str:
        return "".join(f"<{tag}{marked if i in numbers else ''}>{escape(text)}</{tag}>" for i, text in enumerate(texts))

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    head = f"<thead><tr>{cells('th', heads)}</tr></thead>"
    return f'<div class="scroll" tabindex="0"><table>{head}<tbody>{body}</tbody></table></div>'


def _figure(title: str, caption: str, drawing: str) -> str:
    return f"<figure><figcaption><b>{escape(title)}</b>{escape(caption)}</figcaption>{drawing}</figure>"


def _listed(title: str, items: Sequence[str]) -> list[str]:
    if not items:
        return []
    lines = "".join(f"<li>{escape(item)}</li>" for item in items)
    return [f"<h2>{escape(title)}</h2>", f"<ul>{lines}</ul>"]
