"""Reading properties of a directive, with Caddy's error texts."""

from __future__ import annotations

import re

from components.coredns.corefile import Line

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def one(line: Line) -> str:
    """The only argument."""
    if len(line.args) != 1:
        line.wrong_arguments()
    return line.args[0]


def some(line: Line) -> tuple[str, ...]:
    """One argument or more."""
    if not line.args:
        line.wrong_arguments()
    return line.args


def none(line: Line) -> None:
    if line.args:
        line.wrong_arguments()


def number(line: Line, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        line.fail(f'strconv.Atoi: parsing "{text}": invalid syntax')


def duration(line: Line, text: str) -> float:
    """Seconds of a Go duration."""
    found = re.findall(r"([0-9]*\.?[0-9]+)(ns|us|µs|ms|h|m|s)", text)
    if text != "0" and (not found or "".join(value + unit for value, unit in found) != text):
        missing = "missing unit in" if re.fullmatch(r"[0-9.]+", text) else "invalid"
        line.fail(f'time: {missing} duration "{text}"')
    return sum(float(value) * _UNITS[unit] for value, unit in found)


def unknown(line: Line) -> None:
    line.fail(f"unknown property '{line.name}'")
