"""Reads and prints durations."""

from __future__ import annotations

from kubewire.components.base.golang import parse_duration


def seconds(value: float | str) -> float:
    """The seconds of a duration such as 0.5, "500ms", "10s", "1m30s" or "3h". Raises ValueError."""
    if not isinstance(value, str):
        return float(value)
    try:
        found = parse_duration(value)
    except ValueError as error:
        raise ValueError(f"{value!r} is not a time such as 500ms, 10s, 2m or 3h") from error
    if found < 0:
        raise ValueError(f"{value!r} is negative; a time is 0 or more")
    return found


def shown(value: float) -> str:
    """The duration for people: "3 ms", "1.2 s", "2 min 5 s", "3 h 1 min"."""
    if value < 1:
        return f"{value * 1000:.0f} ms" if value >= 0.01 else f"{value * 1000:.1f} ms"
    if value < 60:
        return f"{value:.1f} s"
    if value < 3600:
        return f"{int(value // 60)} min {value % 60:.0f} s"
    return f"{int(value // 3600)} h {value % 3600 / 60:.0f} min"
