"""Measured series: lines of points over one quantity."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """points: (x, y), ascending in x; at least one."""

    name: str
    points: tuple[tuple[float, float], ...]

    @property
    def growth(self) -> float:
        """y at the greatest x, as a multiple of y at the least."""
        first, last = self.points[0][1], self.points[-1][1]
        return last / first if first else float("inf")


@dataclass(frozen=True)
class Chart:
    """x and y say what is measured, with its unit."""

    x: str
    y: str
    lines: tuple[Line, ...]


def parse(text: str, x: str, y: str) -> Chart:
    """Lines of NAME, x and y, separated by tabs. Raises ValueError with a line that is something else."""
    found: dict[str, list[tuple[float, float]]] = {}
    for line in filter(None, text.splitlines()):
        match line.split("\t"):
            case [name, at, value]:
                found.setdefault(name, []).append((float(at), float(value)))
            case _:
                raise ValueError(f"not NAME, x and y between tabs: {line!r}")
    return Chart(x, y, tuple(Line(name, tuple(sorted(points))) for name, points in found.items()))


def number(value: float) -> str:
    """Three digits that count, no exponent."""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
