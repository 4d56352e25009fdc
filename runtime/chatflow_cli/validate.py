"""`chatflow validate FILE...`: every problem of a manifest and of what it refers to, with line, value and remedy."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from chatflow_api.validation import Manifest, ManifestInvalid, read_manifest

from chatflow_cli.errors import ManifestUnusable
from chatflow_cli.local.manifest_file import decoded, find_manifest, read_text
from chatflow_cli.local.objects import read_objects
from chatflow_cli.local.references import Findings, ReferenceCheck
from chatflow_cli.parameters import pairs


@click.command("validate")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--volume", "volumes", multiple=True, metavar="CLAIM=FOLDER", help="Folder that stands for a volume claim."
)
@click.option("-q", "--quiet", is_flag=True, help="Print problems alone.")
def command(files: tuple[str, ...], volumes: tuple[str, ...], quiet: bool) -> None:
    """Check manifests and what they refer to.

    FILE is a manifest, a folder with a manifest and its kustomization.yaml, or - for standard input. Prints `FILE: ok`,
    or the problems, one a line; the status is then 1. ConfigMaps are looked for in the same file and in the
    kustomization.yaml beside it.
    """
    folders = {claim: Path(folder) for claim, folder in pairs(volumes, "--volume", "CLAIM=FOLDER").items()}
    is_valid = True
    for name in files:
        findings = _checked(name, folders)
        for problem in findings.problems:
            click.echo(problem)
        if not quiet:
            for remark in findings.remarks:
                click.echo(remark, err=True)
        if findings.problems:
            is_valid = False
        elif not quiet:
            click.echo(f"{name}: ok")
    if not is_valid:
        raise SystemExit(1)


def _checked(name: str, volumes: dict[str, Path]) -> Findings:
    try:
        manifest, path = _read(name)
    except ManifestInvalid as error:
        return Findings(problems=[str(problem) for problem in error.problems])
    except ManifestUnusable as error:
        return Findings(problems=[error.message])
    objects = read_objects(manifest.documents, path)
    return ReferenceCheck(manifest, objects, volumes, "validate").run().findings


def _read(name: str) -> tuple[Manifest, Path | None]:
    if name == "-":
        return read_manifest(decoded(sys.stdin.buffer.read(), "<stdin>"), "<stdin>"), None
    path = find_manifest(Path(name))
    return read_manifest(read_text(path), str(path)), path
