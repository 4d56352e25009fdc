"""What `up` prints: its own progress, and every child's log lines with a coloured name in front."""

from __future__ import annotations

from collections import deque
from itertools import cycle

import click

_COLOURS = ("cyan", "magenta", "yellow", "green", "blue", "bright_cyan", "bright_magenta", "bright_yellow")
_WIDTH = 12
_KEPT = 400
"""Log lines kept, to be shown when a process does not start."""


class Console:
    """Writes lines, one at a time. A quiet one keeps the last of them for `tail` and prints none."""

    def __init__(self, *, is_quiet: bool = False) -> None:
        self._is_quiet = is_quiet
        self._colours: dict[str, str] = {}
        self._next = cycle(_COLOURS)
        self._kept: deque[tuple[str, str]] = deque(maxlen=_KEPT)

    def say(self, text: str) -> None:
        """A line of the supervisor's own."""
        self.log("chatflow", text)

    def log(self, name: str, text: str, *, is_shown: bool = True) -> None:
        """A line of a child's log; one that is not shown is kept all the same."""
        self._kept.append((name, text))
        if self._is_quiet or not is_shown:
            return
        colour = self._colours.get(name) or self._colours.setdefault(name, next(self._next))
        click.echo(f"{click.style(f'{name:<{_WIDTH}} │', fg=colour)} {text}")

    def remark(self, text: str) -> None:
        """A line that even a quiet one prints, on standard error then: an answer is not to be understood without it."""
        if self._is_quiet:
            click.echo(f"chatflow: {text}", err=True)
        self.say(text)

    def show(self, text: str = "") -> None:
        """A line without a name in front, for what a person copies: the URL, a command."""
        if not self._is_quiet:
            click.echo(text)

    def tail(self, name: str, lines: int) -> list[str]:
        """The last lines of a child's log."""
        return [text for owner, text in self._kept if owner == name][-lines:]
