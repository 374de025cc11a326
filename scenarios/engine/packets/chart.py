"""Charts: measured values as lines over one quantity."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """A named series. points: (x, y) in ascending order of x; at least one."""

    name: str
    points: tuple[tuple[float, float], ...]

    @property
    def growth(self) -> float:
        """y at the largest x divided by y at the smallest x."""
        first = self.points[0][1]
        last = self.points[-1][1]
        return last / first if first else float("inf")


@dataclass(frozen=True)
class Chart:
    """Several lines. x and y: names of the measured quantities, with units."""

    x: str
    y: str
    lines: tuple[Line, ...]


def parse(text: str, x: str, y: str) -> Chart:
    """Reads lines of NAME, x and y, separated by tabs. Raises ValueError with the first malformed
    line."""
    found: dict[str, list[tuple[float, float]]] = {}
    for line in filter(None, text.splitlines()):
        match line.split("\t"):
            case [name, at, value]:
                found.setdefault(name, []).append((float(at), float(value)))
            case _:
                raise ValueError(f"expected NAME, x and y separated by tabs: {line!r}")
    return Chart(x, y, tuple(Line(name, tuple(sorted(points))) for name, points in found.items()))


def number(value: float) -> str:
    """The value with three significant digits and without exponent."""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
