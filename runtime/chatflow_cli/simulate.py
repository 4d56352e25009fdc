"""`chatflow simulate`: a load profile against the rule that the operator deploys, beside CPU and an oracle."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import click
from chatflow_api import v1alpha1 as api
from chatflow_operator.scaling.comparison import COST_TARGET, QUEUE_TARGET_S, Comparison, Setting, compare
from chatflow_operator.scaling.profile import DAY_S, Profile, ProfileInvalid, arrivals, day, read_csv
from chatflow_operator.scaling.rule import UTILISATION, Rule
from chatflow_operator.scaling.servers import ServerModel

from chatflow_cli.errors import CommandFailed, ManifestUnusable
from chatflow_cli.local.manifest_file import load, read_text

_DEFAULT = ServerModel()
_MOST_REQUESTS = 2_000_000
_MOST_DAYS = 14
_WITHOUT_MANIFEST = api.KServeModel(storage_uri="hf://model", replicas=api.ModelReplicas(min=1, max=20))


@click.command("simulate")
@click.option("--profile", default="day", show_default=True, metavar="FILE.csv|day", help="Requests over time.")
@click.option("--manifest", type=click.Path(path_type=Path), help="Take replicas and autoscaling from it.")
@click.option("--role", type=click.Choice(["llm", "backup"]), default="llm", show_default=True, help="Which model.")
@click.option(
    "--peak", default=12.0, show_default=True, type=click.FloatRange(0.1, 1000), help="Peak of day, a second."
)
@click.option(
    "--slots", type=click.IntRange(1, 1000), help="Requests that a server can answer at a time. [concurrency]"
)
@click.option("--tokens", default=300.0, show_default=True, type=click.FloatRange(1, 10_000), help="Of an answer.")
@click.option(
    "--token-gap-ms",
    default=_DEFAULT.token_gap_s * 1000,
    show_default=True,
    type=click.FloatRange(0.1, 1000),
    help="Between two tokens of the only request.",
)
@click.option(
    "--slowdown",
    default=_DEFAULT.slowdown,
    show_default=True,
    type=click.FloatRange(1, 20),
    help="The gap with all slots taken, as a multiple.",
)
@click.option(
    "--start-s",
    default=_DEFAULT.start_s,
    show_default=True,
    type=click.FloatRange(1, 3600),
    help="Until a new server answers.",
)
@click.option("--seed", default=1, show_default=True, help="Of everything that is drawn.")
@click.option("--svg", type=click.Path(path_type=Path, dir_okay=False), help="Draw it into this file.")
@click.option(
    "--csv", "table", type=click.Path(path_type=Path, dir_okay=False), help="Write servers and load over time."
)
def command(
    profile: str,
    manifest: Path | None,
    role: str,
    peak: float,
    slots: int | None,
    tokens: float,
    token_gap_ms: float,
    slowdown: float,
    start_s: float,
    seed: int,
    svg: Path | None,
    table: Path | None,
) -> None:
    """Replay a load profile against the autoscaling of a language model.

    The rule is the one that the operator writes into a ScaledObject, with Prometheus' and the autoscaler's own delays.
    Beside it: autoscaling by CPU, and an oracle that knows the requests to come and orders each server just in time.
    A profile is a CSV file with the columns time_s and requests_per_s, or `day`: a working day whose peak is ten times
    its trough. How to size with it: docs/how-to/autoscaling.md.
    """
    kserve = _WITHOUT_MANIFEST if manifest is None else _model(manifest, role)
    concurrency = int(kserve.autoscaling.concurrency)
    given = slots or concurrency
    server = ServerModel(
        slots=given,
        token_gap_s=token_gap_ms / 1000,
        slowdown=slowdown,
        cache_slots=given * _DEFAULT.cache_slots / _DEFAULT.slots,
        start_s=start_s,
    )
    setting = Setting(
        server,
        Rule(concurrency),
        kserve.replicas.min,
        kserve.replicas.max,
        api.duration_s(kserve.autoscaling.cooldown),
        kserve.gpu,
    )
    load_profile = _profile(profile, peak, seed)
    drawn = arrivals(load_profile, tokens, seed)
    found = compare(drawn, setting)
    click.echo(
        f"{len(drawn.times_s):,} requests in {load_profile.length_s / 3600:.3g} h, up to {max(load_profile.rates):.3g}"
        f" a second; {setting.least} to {setting.most} servers of {given} requests, meant to have"
        f" {UTILISATION:.0%} of {concurrency}; start {start_s:g} s; seed {seed}"
    )
    _print(found)
    if svg is not None:
        from chatflow_cli.scaling_chart import draw

        _write(svg, draw(found, load_profile))
    if table is not None:
        _write(table, _csv(found))


def _model(manifest: Path, role: str) -> api.KServeModel:
    models = load(manifest).flow.spec.models
    model = models.llm if role == "llm" else models.backup
    if model is None or model.kserve is None:
        raise ManifestUnusable(
            f"{manifest}: spec.models.{role}.kserve is not there; its servers are none of the flow's"
        )
    return model.kserve


def _profile(name: str, peak: float, seed: int) -> Profile:
    if name == "day":
        found = day(peak, seed)
    else:
        try:
            found = read_csv(read_text(Path(name)))
        except ProfileInvalid as error:
            raise CommandFailed(f"{name}: {error}") from error
    if found.length_s > _MOST_DAYS * DAY_S:
        raise CommandFailed(f"{name}: {found.length_s / DAY_S:.3g} days; give at most {_MOST_DAYS}")
    if not 1 <= found.requests <= _MOST_REQUESTS:
        raise CommandFailed(f"{name}: {found.requests:,.0f} requests; give 1 to {_MOST_REQUESTS:,}, or a part of it")
    return found


def _print(found: Comparison) -> None:
    click.echo(
        f"\n{'':<16}{'queue p50':>11}{'p95':>11}{'p99':>11}{'over 1 s':>10}{'latency p50':>13}{'p95':>11}"
        f"{'servers':>9}{'GPU hours':>11}{'of oracle':>11}"
    )
    for row in found.rows:
        p50, p95, p99 = map(_seconds, row.queue_s)
        half, most = map(_seconds, row.latency_s)
        click.echo(
            f"{row.name:<16}{p50:>11}{p95:>11}{p99:>11}{row.late:>10.1%}{half:>13}{most:>11}{row.peak:>9}"
            f"{row.gpu_hours:>11.1f}{found.cost(row):>10.2f}x"
        )
    quick, thrifty = _verdict(found.is_quick), _verdict(found.is_thrifty)
    click.echo(f"\n{quick} p95 of the queue time {_seconds(found.ours.queue_s[1])}, under {QUEUE_TARGET_S:g} s")
    click.echo(f"{thrifty} GPU hours {found.cost(found.ours):.2f}x the oracle's, at most {COST_TARGET:g}x")
    if found.oracle.queue_s[1] >= QUEUE_TARGET_S:
        click.echo(f"The oracle does not keep {QUEUE_TARGET_S:g} s either: servers are too few, or start too late.")


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value < 100 else f"{value:,.0f} s"


def _verdict(is_kept: bool) -> str:
    return "PASS" if is_kept else "FAIL"


def _csv(found: Comparison) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["rule", "time_s", "servers_ready", "servers_ordered", "running", "waiting"])
    for row in found.rows:
        for one in row.outcome.samples:
            rows.writerow([row.name, one.time_s, one.ready, one.ordered, one.running, one.waiting])
    return text.getvalue()


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandFailed(f"{file}: {error.strerror}; name a file in a folder that exists") from error
    click.echo(f"wrote {file}", err=True)
