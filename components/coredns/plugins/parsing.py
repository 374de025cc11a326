"""Reading properties of a directive, with Caddy's error texts."""

from __future__ import annotations

from kubewire.components.base.golang import parse_duration
from kubewire.components.coredns.corefile import Line


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
    try:
        return parse_duration(text)
    except ValueError as error:
        line.fail(str(error))


def unknown(line: Line) -> None:
    line.fail(f"unknown property '{line.name}'")
