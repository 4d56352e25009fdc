"""`chatflow train FILE`: the intent model, tested against the current one, with a report."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from chatflow_cli.parameters import pairs
from chatflow_cli.progress import Progress

if TYPE_CHECKING:
    from chatflow_cli.training_run import Trained

_WARNINGS_SHOWN = 10


@click.command("train")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--examples",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Further labelled questions (.csv, .jsonl, .yaml); may be repeated.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder of the model and its report.  [DATA/FLOW/training]"
)
@click.option("--current", metavar="DIR|none", help="Model to compare with.  [the one that `up` has in force]")
@click.option(
    "--held-out",
    default=0.2,
    show_default=True,
    type=click.FloatRange(0.05, 0.5),
    help="Share of the examples that the test takes.",
)
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Picks which examples the test takes."
)
@click.option("--json", "is_json", is_flag=True, help="Print the report as one JSON object.")
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
    examples: tuple[Path, ...],
    out: Path | None,
    current: str | None,
    held_out: float,
    seed: int,
    is_json: bool,
    light: bool,
    settings: tuple[str, ...],
    volumes: tuple[str, ...],
    data: Path,
) -> None:
    """Train the intent model, test it, and write a report.

    Trains from the manifest's examples, the questions of its knowledge, and further files: rows with text and intent,
    or questions that the bot kept for labelling, with a label added (docs/how-to/train.md). A model of most examples
    is tested on the rest, beside the current model; then the model itself is trained on everything.

    Writes the model with report.html, report.md and report.json to a folder. What is in force stays in force: add the
    further files to exampleSources, and `up` finds the model trained already.
    """
    if math.isnan(held_out):
        raise click.BadParameter("nan is no share; write one from 0.05 to 0.5", param_hint="--held-out")
    # Everything below is imported here, so that --help and a wrong option answer at once.
    from chatflow_cli.local.preparation import Options
    from chatflow_cli.training_run import Course, run

    overrides = pairs(settings, "--set", "PATH=VALUE, for example models.intent.confidence=0.9")
    if light:
        overrides |= {"models.intent.encoder": "none", "models.intent.encoderPath": "null"}
    folders = {claim: Path(folder) for claim, folder in pairs(volumes, "--volume", "CLAIM=FOLDER").items()}
    course = Course(
        options=Options(file=file, data=data, settings=overrides, volumes=folders),
        further=examples,
        current=None if current in (None, "none") else Path(str(current)),
        is_compared=current != "none",
        held_out=held_out,
        seed=seed,
        out=out,
    )
    progress = Progress()
    try:
        trained = run(course, progress.tell)
    finally:
        progress.end()
    _print(trained, examples, is_json=is_json)


def _print(trained: Trained, further: tuple[Path, ...], *, is_json: bool) -> None:
    from chatflow_models.training.pages import figures, held_out_rows, verdict

    from chatflow_cli.training_run import REPORT_PAGE

    rehearsed = trained.rehearsed
    if is_json:
        click.echo(json.dumps(figures(rehearsed), ensure_ascii=False, indent=2))
        return
    for title, new, current, change in held_out_rows(rehearsed):
        click.echo(f"{title:<26}{new:>12}{current:>10}   {change}".rstrip())
    click.echo(f"\n{verdict(rehearsed)}\n")
    for warning in rehearsed.warnings[:_WARNINGS_SHOWN]:
        click.echo(f"note: {warning}", err=True)
    if len(rehearsed.warnings) > _WARNINGS_SHOWN:
        click.echo(f"note: {len(rehearsed.warnings) - _WARNINGS_SHOWN} more stand in the report", err=True)
    click.echo(f"model   {trained.folder}  (version {rehearsed.fitted.report.version})")
    click.echo(f"report  {trained.folder / REPORT_PAGE}")
    if further:
        click.echo("To use it, add the further files to spec.models.intent.exampleSources, as the last ones.")
