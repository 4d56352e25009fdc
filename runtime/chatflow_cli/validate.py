"""`chatflow validate FILE...`: every problem of a manifest and of what it refers to, with line, value and remedy."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from chatflow_api.crd_rules import violations_beyond
from chatflow_api.manifest_source import SourceInvalid, read_documents
from chatflow_api.v1alpha1 import API_VERSION, KIND
from chatflow_api.validation import ManifestInvalid, Problem, path_text, read_manifest

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


def _checked(name: str, folders: dict[str, Path]) -> Findings:
    try:
        text, path = _read(name)
    except ManifestUnusable as error:
        return Findings(problems=[error.message])
    filename = "<stdin>" if path is None else str(path)
    try:
        manifest = read_manifest(text, filename)
    except ManifestInvalid as error:
        problems = [*error.problems, *_refused_by_the_definition(text, filename, error.problems)]
        return Findings(problems=[str(problem) for problem in problems])
    if refused := list(_refused_by_the_definition(text, filename, ())):
        return Findings(problems=[str(problem) for problem in refused])
    objects = read_objects(manifest.documents, path)
    return ReferenceCheck(manifest, objects, folders, "validate").run().findings


def _refused_by_the_definition(text: str, filename: str, reported: Sequence[Problem]) -> Iterator[Problem]:
    """What the API server would refuse and nothing in `reported` speaks of.

    Slots and actions that stand twice beside another mistake are such a case. The tests know of no manifest that the
    types accept and the definition refuses; should there be one, it is better told here than by `kubectl apply`.
    """
    try:
        documents = read_documents(text)
    except SourceInvalid:
        return
    envelope = {"apiVersion": API_VERSION, "kind": KIND}
    for document in documents:
        if not isinstance(document.data, dict) or not envelope.items() <= document.data.items():
            continue
        for violation in violations_beyond([problem.path for problem in reported], document.data):
            place = document.place(violation.path)
            yield Problem(
                filename,
                path_text(violation.path),
                violation.message,
                "the CustomResourceDefinition refuses it; see docs/reference/manifest.md",
                line=place.line if place else None,
                column=place.column if place else None,
            )


def _read(name: str) -> tuple[str, Path | None]:
    """The text that a name stands for, and its file; None is standard input."""
    if name == "-":
        return decoded(sys.stdin.buffer.read(), "<stdin>"), None
    path = find_manifest(Path(name))
    return read_text(path), path
