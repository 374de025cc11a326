"""Reads the properties of a directive; the error texts are those of Caddy and CoreDNS."""

from __future__ import annotations

from kubewire.components.base.golang import parse_duration
from kubewire.components.coredns.corefile import Line


def one(line: Line) -> str:
    """The line's only argument."""
    if len(line.args) != 1:
        line.wrong_arguments()
    return line.args[0]


def some(line: Line) -> tuple[str, ...]:
    """The line's arguments, at least one."""
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
    """A Go duration, in seconds."""
    try:
        return parse_duration(text)
    except ValueError as error:
        line.fail(str(error))


def unknown(line: Line) -> None:
    line.fail(f"unknown property '{line.name}'")
