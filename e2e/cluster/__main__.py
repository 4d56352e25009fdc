"""`python -m e2e.cluster`: a real Kubernetes on this machine, from package registries alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import click

from . import prerequisites
from .addons import ADDONS
from .bed import Bed, Mode
from .errors import BedError
from .images import RECIPES
from .layout import Layout
from .status import report


def _say(text: str) -> None:
    click.echo(text, err=True)


@click.group(help=__doc__)
@click.option("--name", default="default", show_default=True, help="Which bed: several may run side by side.")
@click.pass_context
def cli(context: click.Context, name: str) -> None:
    """Make the bed's object for the commands below."""
    context.obj = Bed(Layout.read(os.environ, name), _say)


@cli.command()
@click.option(
    "--control-plane", "mode", flag_value=Mode.CONTROL_PLANE.value, help="No node: API server and controllers."
)
@click.option("--node", "mode", flag_value=Mode.NODE.value, help="One node (the default); needs root.")
@click.option("--addon", "addons", multiple=True, help="An addon to install; may be given again.")
@click.pass_obj
def up(bed: Bed, mode: str | None, addons: tuple[str, ...]) -> None:
    """Bring the bed up, or repair it; what runs already stays."""
    begin = time.monotonic()
    with bed.exclusively():
        settings = bed.up(None if mode is None else Mode(mode))
        for addon in addons:
            bed.addon(addon)
    _say(f"{settings.mode} bed {bed.layout.name!r} ready in {time.monotonic() - begin:.1f} s")
    click.echo(f"export KUBECONFIG={bed.layout.kubeconfig}")


@cli.command()
@click.pass_obj
def down(bed: Bed) -> None:
    """End the bed and remove all of it but the cache."""
    begin = time.monotonic()
    with bed.exclusively():
        bed.down()
    _say(f"bed {bed.layout.name!r} is gone after {time.monotonic() - begin:.1f} s")


@cli.command()
@click.pass_obj
def status(bed: Bed) -> None:
    """Say what runs, with its memory; exit 1 when something is missing."""
    text, is_whole = report(bed)
    click.echo(text)
    sys.exit(0 if is_whole else 1)


@cli.command()
def doctor() -> None:
    """Say what this machine lacks for a bed, and how to get it; exit 1 when a node cannot run."""
    reasons = prerequisites.missing(node=True)
    for reason in reasons:
        click.echo(f"- {reason}")
    click.echo("everything that a node needs is here" if not reasons else "a node cannot run here yet")
    sys.exit(1 if reasons else 0)


@cli.command("load-image")
@click.argument("image", metavar=f"[{'|'.join(sorted(RECIPES))}|ARCHIVE.tar]")
@click.pass_obj
def load_image(bed: Bed, image: str) -> None:
    """Give the node an image of the bed's own, built if need be, or one from an archive."""
    click.echo(bed.load_image(image))


@cli.command()
@click.pass_obj
def kubeconfig(bed: Bed) -> None:
    """Print the administrator's kubeconfig path."""
    if not bed.layout.kubeconfig.exists():
        raise BedError(f"bed {bed.layout.name!r} is down; run `up` first")
    click.echo(bed.layout.kubeconfig)


@cli.command()
@click.argument("process", required=False)
@click.option("--follow", "-f", is_flag=True, help="Go on as lines come.")
@click.pass_obj
def logs(bed: Bed, process: str | None, follow: bool) -> None:
    """Print a process's log, or name the processes that have one."""
    files = {file.stem: file for file in sorted(bed.layout.logs.glob("*.log"))}
    if process is None:
        click.echo("\n".join(files))
        return
    if process not in files:
        raise BedError(f"no log of {process!r}; there are {', '.join(files) or 'none'}")
    subprocess.run(["tail", "-n", "+1", *(["--follow"] if follow else []), str(files[process])])


@cli.command()
@click.argument("name", type=click.Choice(sorted(ADDONS)))
@click.pass_obj
def addon(bed: Bed, name: str) -> None:
    """Install an addon, or repair it."""
    with bed.exclusively():
        bed.addon(name)


@cli.command("exec", context_settings={"ignore_unknown_options": True})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_obj
def execute(bed: Bed, command: tuple[str, ...]) -> None:
    """Run a command inside the node's namespaces."""
    sys.exit(subprocess.run([*bed.namespaces().prefix, *command]).returncode)


@cli.command()
@click.argument("images", nargs=-1, metavar="[IMAGE]...")
@click.option("--addons", "with_addons", is_flag=True, help="The tools of every addon too.")
@click.pass_obj
def build(bed: Bed, images: tuple[str, ...], with_addons: bool) -> None:
    """Build the tools into the cache (and the images named) without starting anything."""
    bed.build(images, with_addons=with_addons)


def main() -> None:
    """Run the command line; a BedError is one message and exit code 1."""
    try:
        cli(prog_name="python -m e2e.cluster")
    except BedError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
