"""Draws measured values as SVG. Both axes are linear and start at zero, so linear growth is a
straight line and no growth a horizontal one. The colours come from the style sheet of the page."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape

from kubewire.scenarios.engine.packets.chart import Chart, Line, number

WIDTH = 560
HEIGHT = 260
LEFT = 70
TOP = 28
BOTTOM = 46
LEGEND = 24
LETTER = 7.0
COLOURS = 6


def svg(chart: Chart) -> str:
    """The picture; "" if there is nothing to draw."""
    points = [point for line in chart.lines for point in line.points]
    if not points:
        return ""
    right = _round_up(max(x for x, _ in points))
    top = _round_up(max(y for _, y in points))
    legend = round(max(len(line.name) for line in chart.lines) * LETTER) + LEGEND + 12
    width = LEFT + WIDTH + legend
    height = TOP + HEIGHT + BOTTOM
    parts = [
        f'<svg class="plot" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(chart.y)} by {escape(chart.x)}">',
        *_axes(chart, right, top),
    ]
    for place, line in enumerate(chart.lines):
        parts += _line(line, place, right, top)
    return "\n".join([*parts, "</svg>"])


def _round_up(value: float) -> float:
    """The smallest of 1, 2, 5 and 10 times a power of ten that is not below value."""
    if value <= 0:
        return 1.0
    unit = 10.0 ** math.floor(math.log10(value))
    return next(step * unit for step in (1, 2, 5, 10) if step * unit >= value * 0.999)


def _x(value: float, right: float) -> float:
    return LEFT + WIDTH * value / right


def _y(value: float, top: float) -> float:
    return TOP + HEIGHT * (1 - value / top)


def _axes(chart: Chart, right: float, top: float) -> Iterator[str]:
    for part in range(6):
        y = _y(top * part / 5, top)
        yield f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{LEFT + WIDTH}" y2="{y:.1f}"/>'
        yield f'<text class="y" x="{LEFT - 8}" y="{y + 4:.1f}">{number(top * part / 5)}</text>'
    for value in sorted({x for line in chart.lines for x, _ in line.points}):
        x = _x(value, right)
        yield f'<line class="grid" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{TOP + HEIGHT + 4}"/>'
        yield f'<text class="x" x="{x:.1f}" y="{TOP + HEIGHT + 18}">{_short(value)}</text>'
    yield f'<text x="{LEFT}" y="{TOP - 12}">{escape(chart.y)}</text>'
    x = LEFT + WIDTH / 2
    yield f'<text class="x" x="{x:.0f}" y="{TOP + HEIGHT + 36}">{escape(chart.x)}</text>'


def _short(value: float) -> str:
    """The label of a value on the x axis. Values from 1000 on are in thousands, so that
    neighbouring labels do not overlap."""
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"


def _line(line: Line, place: int, right: float, top: float) -> Iterator[str]:
    spots = [(_x(x, right), _y(y, top)) for x, y in line.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
    yield f'<g class="l{place % COLOURS}"><polyline class="line" points="{path}"/>'
    for (x, y), (at, value) in zip(spots, line.points, strict=True):
        what = escape(f"{line.name}, {number(at)}: {number(value)}")
        yield f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="3.5">'
        yield f"<title>{what}</title></circle>"
    column = LEFT + WIDTH + LEGEND
    row = TOP + 10 + place * 20
    yield f'<circle class="point" cx="{column - 10}" cy="{row - 4}" r="4"/>'
    yield f'<text class="name" x="{column}" y="{row}">{escape(line.name)}</text></g>'
