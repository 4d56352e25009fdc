"""How far a long command is, on standard error: one line that changes on a terminal, a line a stage elsewhere."""

from __future__ import annotations

import sys

import click

_WIDTH = 72


class Progress:
    """Told stages and shares of the whole; `end` leaves the terminal's line."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._stage = ""

    def tell(self, stage: str, share: float) -> None:
        """The stage, and the share of the whole that is done, 0 to 1."""
        line = f"{share:4.0%}  {stage}"
        if self._is_terminal:
            click.echo(f"\r{line:<{_WIDTH}}", err=True, nl=False)
        elif stage != self._stage:
            click.echo(line, err=True)
        self._stage = stage

    def end(self) -> None:
        """Clear the line."""
        if self._is_terminal and self._stage:
            click.echo(f"\r{'':<{_WIDTH}}\r", err=True, nl=False)
