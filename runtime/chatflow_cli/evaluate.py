"""`chatflow evaluate FILE`: the flow's own labelled questions through its real parts, without any server."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from chatflow_cli.parameters import pairs

if TYPE_CHECKING:
    from chatflow_cli.measures import Figures, Judged

_ERRORS_SHOWN = 10
_ROWS = (
    ("intent accuracy", "intent_accuracy", "in-scope questions whose intent is right"),
    ("precision above threshold", "precision_above_threshold", "right ones among all that are acted on"),
    ("coverage above threshold", "coverage_above_threshold", "in-scope questions that are acted on"),
    ("calibration error", "calibration_error", "gap between confidence and accuracy"),
    ("found at 1", "found_at_1", "right entry first"),
    ("found at 5", "found_at_5", "right entry among the first five"),
    ("out of scope held back", "out_of_scope_held_back", "not answered from knowledge"),
    ("out of scope above threshold", "out_of_scope_above_threshold", "acted on nevertheless"),
)


@click.command("evaluate")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--questions", type=click.Path(path_type=Path), help="Labelled questions.  [questions.jsonl beside FILE]")
@click.option("--json", "is_json", is_flag=True, help="Print the figures as one JSON object.")
@click.option("--light", is_flag=True, help="Without a sentence encoder: character n-grams alone.")
@click.option("--set", "settings", multiple=True, metavar="PATH=VALUE", help="Field below spec; may be repeated.")
@click.option(
    "--volume", "volumes", multiple=True, metavar="CLAIM=FOLDER", help="Folder that stands for a volume claim."
)
@click.option(
    "--data", default=".chatflow", show_default=True, type=click.Path(path_type=Path), help="Folder that `up` uses."
)
def command(
    file: Path,
    questions: Path | None,
    is_json: bool,
    light: bool,
    settings: tuple[str, ...],
    volumes: tuple[str, ...],
    data: Path,
) -> None:
    """Measure a manifest with labelled questions.

    Trains and indexes as `up` does (built once, kept in the data folder), then takes every question through
    normalisation, moderation, classification, routing and retrieval as the first message of a conversation. A line of
    the file is {"text": "...", "intent": "...", "answers": ["id", ...]}; the intent out_of_scope marks questions that
    must not be answered, `answers` are ids of knowledge entries that are right.

    \b
    intent accuracy               share of in-scope questions whose most likely intent is right
    precision above threshold     of all questions that are acted on (in scope by the model, confidence above the
                                  manifest's), out-of-scope ones included, the share whose intent is right
    coverage above threshold      share of in-scope questions that are acted on
    calibration error             expected calibration error over in-scope questions, 15 bins
    found at 1, at 5              share of questions with answers that have a right entry first, among the first five
    out of scope held back        share of out-of-scope questions that are not answered from knowledge
    out of scope above threshold  share of out-of-scope questions that are acted on
    rungs, origins                share of all questions by rung of the ladder and by answerer; language models are not
                                  called, what would go to them counts as L1
    """
    from chatflow_cli.local.preparation import Options
    from chatflow_cli.measures import measure
    from chatflow_cli.trial import run_trial

    overrides = pairs(settings, "--set", "PATH=VALUE, for example models.intent.confidence=0.9")
    if light:
        overrides |= {"models.intent.encoder": "none", "models.intent.encoderPath": "null"}
    folders = {claim: Path(folder) for claim, folder in pairs(volumes, "--volume", "CLAIM=FOLDER").items()}
    options = Options(file=file, data=data, settings=overrides, volumes=folders)
    judged = run_trial(options, questions, lambda line: click.echo(line, err=True))
    figures = measure(judged)
    if is_json:
        click.echo(json.dumps(asdict(figures), ensure_ascii=False, indent=2))
    else:
        _print(figures, judged)


def _print(figures: Figures, judged: Sequence[Judged]) -> None:
    values = asdict(figures)
    click.echo(f"{figures.questions} questions, {sum(not question.is_in_scope for question in judged)} out of scope")
    for title, name, meaning in _ROWS:
        value = values[name]
        shown = "      -" if value is None else f"{value:7.4f}" if name == "calibration_error" else f"{value:7.1%}"
        click.echo(f"{title:<30}{shown}   {click.style(meaning, dim=True)}")
    for title, shares in (("rungs", figures.rungs), ("origins", figures.origins)):
        click.echo(f"{title:<30}" + "  ".join(f"{name} {share:.1%}" for name, share in shares.items()))
    _print_intents(judged)
    _print_missed(judged)


def _print_intents(judged: Sequence[Judged]) -> None:
    """A row for every intent with errors: how many questions, how many wrong, and what was taken for it."""
    click.echo(f"\n{'intent':<28}{'questions':>10}{'wrong':>7}  taken for")
    for intent, count in sorted(Counter(question.intent for question in judged).items()):
        wrong = Counter(
            question.predicted or "nothing" for question in judged if question.intent == intent and question.is_mistaken
        )
        if wrong:
            taken = ", ".join(f"{name} {number}" for name, number in wrong.most_common(4))
            click.echo(f"{intent:<28}{count:>10}{wrong.total():>7}  {taken}")


def _print_missed(judged: Sequence[Judged]) -> None:
    wrong = [question for question in judged if question.is_acted_on and not question.is_right]
    lost = [question for question in judged if question.answers and not question.is_found_within(5)]
    second = [question for question in judged if question.is_found_within(5) and not question.is_found_within(1)]
    for title, questions in (
        ("acted on although wrong", wrong),
        ("right entry not found", lost),
        ("right entry not first", second),
    ):
        if questions:
            click.echo(f"\n{title}:")
        for question in questions[:_ERRORS_SHOWN]:
            found = question.found[0] if question.found else "nothing"
            guess = f"{question.predicted} {question.confidence:.2f}"
            click.echo(f"  {question.text}  [{question.intent}; predicted {guess}; found {found}]")
        if len(questions) > _ERRORS_SHOWN:
            click.echo(f"  ... and {len(questions) - _ERRORS_SHOWN} more")
