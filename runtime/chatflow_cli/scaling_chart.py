"""A chart of `chatflow simulate` as SVG: the load, the servers of each rule, and who waits. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from chatflow_operator.scaling.comparison import Comparison, Row
from chatflow_operator.scaling.profile import Profile
from chatflow_operator.scaling.simulation import Sample

_WIDTH, _LEFT, _RIGHT, _HEIGHT, _TOP, _GAP = 960, 64, 24, 180, 56, 46
_POINTS = 720
"""So many steps over the width: more could not be told apart."""
_COLOURS = ("#0b6bcb", "#d9822b", "#a8a8a8", "#1a9850")
_STYLE = (
    "text{font:12px sans-serif;fill:#333}.title{font-weight:bold}.grid{stroke:#e3e3e3}"
    "path{fill:none;stroke-width:1.6;stroke-linejoin:round}"
)


@dataclass(frozen=True, slots=True)
class _Panel:
    """One chart of several that share the time axis."""

    title: str
    top: int
    length_s: float
    most: float

    def x(self, time_s: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * time_s / self.length_s

    def y(self, value: float) -> float:
        return self.top + _HEIGHT * (1 - min(value, self.most) / self.most)

    def frame(self) -> Iterator[str]:
        """The title, and lines across with their values."""
        yield f'<text class="title" x="{_LEFT}" y="{self.top - 10}">{escape(self.title)}</text>'
        for part in range(5):
            value = self.most * part / 4
            y = self.y(value)
            yield f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            yield f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>'

    def hours(self) -> Iterator[str]:
        """The time axis below."""
        hours = self.length_s / 3600
        step = next((one for one in (0.25, 0.5, 1, 2, 3, 6, 12, 24) if hours / one <= 12), 48)
        for number in range(int(hours / step) + 1):
            x, y = self.x(number * step * 3600), self.top + _HEIGHT
            yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{y}" y2="{y + 5}"/>'
            yield f'<text x="{x:.1f}" y="{y + 19}" text-anchor="middle">{number * step:g} h</text>'

    def line(self, points: Iterable[tuple[float, float]], colour: str, *, is_stepped: bool) -> str:
        """One curve; a stepped one keeps its value until the next point."""
        parts: list[str] = []
        for time_s, value in points:
            x, y = f"{self.x(time_s):.1f}", f"{self.y(value):.1f}"
            parts.append(f"H{x}V{y}" if is_stepped and parts else f"{'L' if parts else 'M'}{x} {y}")
        return f'<path stroke="{colour}" d="{"".join(parts)}"/>'


def draw(found: Comparison, profile: Profile) -> str:
    """The chart. Values above a panel's scale run along its upper edge."""
    length_s = profile.length_s
    tops = [_TOP + number * (_HEIGHT + _GAP) for number in range(3)]
    # One way that lets thousands wait would flatten all others.
    waiting = max(1, *(sample.waiting for row in (found.ours, found.oracle) for sample in row.outcome.samples))
    load = _Panel("Requests a second", tops[0], length_s, _rounded(max(profile.rates)))
    servers = _Panel("Servers ordered", tops[1], length_s, _rounded(max(row.peak for row in found.rows)))
    queue = _Panel("Requests waiting", tops[2], length_s, _rounded(waiting))
    height = tops[2] + _HEIGHT + 34
    times_s = [length_s * number / _POINTS for number in range(_POINTS + 1)]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}">',
        f'<style>{_STYLE}</style><rect width="100%" height="100%" fill="#fff"/>',
        *_legend(found.rows),
        *(part for panel in (load, servers, queue) for part in panel.frame()),
        *queue.hours(),
        load.line(((time_s, profile.rate(time_s)) for time_s in times_s), "#333", is_stepped=False),
    ]
    for row, colour in reversed(list(zip(found.rows, _COLOURS, strict=True))):
        parts.append(servers.line(_thinned(row, lambda sample: sample.ordered), colour, is_stepped=True))
        parts.append(queue.line(_thinned(row, lambda sample: sample.waiting), colour, is_stepped=True))
    return "\n".join([*parts, "</svg>\n"])


def _legend(rows: Sequence[Row]) -> Iterator[str]:
    for number, (row, colour) in enumerate(zip(rows, _COLOURS, strict=True)):
        x = _LEFT + number * 220
        yield f'<rect x="{x}" y="12" width="14" height="4" fill="{colour}"/>'
        yield f'<text x="{x + 20}" y="18">{escape(row.name)}: {row.gpu_hours:.1f} GPU h</text>'


def _thinned(row: Row, value: Callable[[Sample], float]) -> Iterator[tuple[float, float]]:
    """The highest value of every stretch that is one step wide."""
    samples = row.outcome.samples
    width = max(1, math.ceil(len(samples) / _POINTS))
    for begin in range(0, len(samples), width):
        yield samples[begin].time_s, max(map(value, samples[begin : begin + width]))


def _rounded(value: float) -> float:
    """A round number from which four equal parts are round too."""
    unit = 10.0 ** math.floor(math.log10(value / 4))
    return next(4 * unit * factor for factor in (1, 2, 2.5, 5, 10) if 4 * unit * factor >= value * 0.999)
