"""Forms of parameters that several commands share."""

from __future__ import annotations

from collections.abc import Iterable

import click


def pairs(values: Iterable[str], option: str, form: str) -> dict[str, str]:
    """`name=value` options as a mapping; click.UsageError (status 2) names the one that has another form."""
    found: dict[str, str] = {}
    for value in values:
        name, separator, rest = value.partition("=")
        if not separator or not name.strip() or not rest:
            raise click.UsageError(f"{option} {value!r}: write {form}")
        found[name.strip()] = rest
    return found
