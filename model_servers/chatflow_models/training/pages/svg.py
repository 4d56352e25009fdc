"""Drawings as SVG text, with axes where a plot needs them. Pure; `plots` draws with it.

Colours and text sizes are classes of the page's style sheet, so that a drawing follows light and dark.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape


@dataclass(slots=True)
class Drawing:
    """A picture of a given size in user units. `title` and `description` are what a screen reader says."""

    name: str
    """Unique on the page; ids are made of it."""
    width: float
    height: float
    title: str
    description: str
    _parts: list[str] = field(default_factory=list)

    def line(self, x1: float, y1: float, x2: float, y2: float, style: str) -> None:
        """A straight line."""
        self._parts.append(f'<line class="{style}" x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}"/>')

    def box(self, x: float, y: float, width: float, height: float, style: str, *, opacity: float = 1.0) -> None:
        """A filled rectangle."""
        faint = "" if opacity == 1 else f' fill-opacity="{_n(opacity)}"'
        self._parts.append(
            f'<rect class="{style}" x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}"{faint}/>'
        )

    def dot(self, x: float, y: float, radius: float, style: str, tip: str = "") -> None:
        """A circle; `tip` shows when the pointer rests on it."""
        inner = f"<title>{escape(tip)}</title>" if tip else ""
        self._parts.append(f'<circle class="{style}" cx="{_n(x)}" cy="{_n(y)}" r="{_n(radius)}">{inner}</circle>')

    def curve(self, points: Sequence[tuple[float, float]], style: str) -> None:
        """A line through points."""
        if points:
            path = " ".join(f"{_n(x)},{_n(y)}" for x, y in points)
            self._parts.append(f'<polyline class="{style}" points="{path}"/>')

    def text(self, x: float, y: float, words: str, style: str = "", *, anchor: str = "start", turn: float = 0) -> None:
        """Words on their base line; `turn` in degrees, about where they are anchored."""
        turned = f' transform="rotate({_n(turn)} {_n(x)} {_n(y)})"' if turn else ""
        named = f' class="{style}"' if style else ""
        self._parts.append(
            f'<text{named} x="{_n(x)}" y="{_n(y)}" text-anchor="{anchor}"{turned}>{escape(words)}</text>'
        )

    def render(self) -> str:
        """The element, to stand in an HTML page."""
        title, description = f"{self.name}-title", f"{self.name}-description"
        return (
            f'<svg viewBox="0 0 {_n(self.width)} {_n(self.height)}" role="img" aria-labelledby="{title} {description}">'
            f'<title id="{title}">{escape(self.title)}</title>'
            f'<desc id="{description}">{escape(self.description)}</desc>{"".join(self._parts)}</svg>'
        )


@dataclass(frozen=True, slots=True)
class Axes:
    """A rectangle of a drawing in which values have places."""

    drawing: Drawing
    left: float
    top: float
    width: float
    height: float
    x_range: tuple[float, float] = (0.0, 1.0)
    y_range: tuple[float, float] = (0.0, 1.0)

    def x(self, value: float) -> float:
        """Where a value stands across."""
        low, high = self.x_range
        return self.left + self.width * (value - low) / (high - low)

    def y(self, value: float) -> float:
        """Where a value stands up the picture."""
        low, high = self.y_range
        return self.top + self.height * (1 - (value - low) / (high - low))

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Both."""
        return self.x(x), self.y(y)

    def frame(self, x_ticks: Sequence[float], y_ticks: Sequence[float], x_title: str, y_title: str) -> None:
        """Grid, figures at the ticks, and the titles of both axes."""
        bottom, right = self.top + self.height, self.left + self.width
        for value in y_ticks:
            self.drawing.line(self.left, self.y(value), right, self.y(value), "grid")
            self.drawing.text(self.left - 8, self.y(value) + 4, percent(abs(value)), "tick", anchor="end")
        for value in x_ticks:
            self.drawing.line(self.x(value), self.top, self.x(value), bottom, "grid")
            self.drawing.text(self.x(value), bottom + 18, percent(value), "tick", anchor="middle")
        self.drawing.text(self.left + self.width / 2, bottom + 38, x_title, "axis", anchor="middle")
        middle = self.top + self.height / 2
        self.drawing.text(self.left - 46, middle, y_title, "axis", anchor="middle", turn=-90)


def percent(value: float) -> str:
    """A share as a tick shows it."""
    return f"{100 * value:.3g}%"


def breadth(words: str, size: float = 12) -> float:
    """About how broad words are in user units: full-width characters take one em, others some three fifths."""
    return sum(size if unicodedata.east_asian_width(c) in "WF" else 0.6 * size for c in words)


def shortened(words: str, limit: float, size: float = 12) -> str:
    """Words cut to a breadth, with an ellipsis where something is missing."""
    if breadth(words, size) <= limit:
        return words
    kept = words
    while kept and breadth(kept, size) + size > limit:
        kept = kept[:-1]
    return kept + "…"


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
