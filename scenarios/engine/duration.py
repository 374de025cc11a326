"""Times as scenarios write them."""

from __future__ import annotations

import re

#: unit -> seconds
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(value: float | str) -> float:
    """0.5, "500ms", "10s", "2m", "3h" -> seconds. Raises ValueError."""
    if not isinstance(value, str):
        return float(value)
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)", value)
    if not match:
        raise ValueError(f"{value!r} is not a time such as 500ms, 10s, 2m or 3h")
    return float(match[1]) * UNITS[match[2]]


def shown(value: float) -> str:
    """For people: "3 ms", "1.2 s", "2 min 5 s", "3 h 1 min"."""
    if value < 1:
        return f"{value * 1000:.0f} ms" if value >= 0.01 else f"{value * 1000:.1f} ms"
    if value < 60:
        return f"{value:.1f} s"
    if value < 3600:
        return f"{int(value // 60)} min {value % 60:.0f} s"
    return f"{int(value // 3600)} h {value % 3600 / 60:.0f} min"
