"""Divides a command line into the words that kubewire reads and those that another program gets.

`kubectl`, `helm`, `node` and `test` pass words on. argparse cannot do that when the first of them
is an option (`kubewire kubectl -n x get pods`): it looks for the option among its own. So the line
is divided before argparse sees it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: The commands that pass words on, with the number of words of their own that come first: `node`
#: has the name of a host.
PASSING = {"kubectl": 0, "helm": 0, "node": 1, "test": 0}
#: The commands of PASSING that have no lab. Their --name is for the other program.
WITHOUT_LAB = frozenset({"test"})
_NAME = "--name"


@dataclass(frozen=True)
class Line:
    """own: the words for kubewire's parser. passed: the others; None if the command passes none."""

    own: tuple[str, ...]
    passed: tuple[str, ...] | None = None


def divide(words: Sequence[str]) -> Line:
    """Divides a line. A --name before the command is moved behind it, where the parsers know it."""
    named, rest = _leading_name(words)
    if not rest or rest[0] not in PASSING:
        return Line((*rest[:1], *named, *rest[1:]))
    command, *rest = rest
    if command not in WITHOUT_LAB:
        more, rest = _leading_name(rest)
        named = (*named, *more)
    words_of_its_own = PASSING[command]
    if words_of_its_own and rest[:1] and rest[0].startswith("-"):
        return Line(
            (command, *named, *rest)
        )  # its parser knows the option, or says that it is wrong
    own = (command, *named, *rest[:words_of_its_own])
    passed = tuple(rest[words_of_its_own:])
    return Line(own, passed[1:] if passed[:1] == ("--",) else passed)


def _leading_name(words: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """The options --name NAME and --name=NAME at the start, and the words after them."""
    rest = list(words)
    named: list[str] = []
    while rest and (rest[0] == _NAME or rest[0].startswith(f"{_NAME}=")):
        taken = 2 if rest[0] == _NAME else 1
        named += rest[:taken]
        del rest[:taken]
    return tuple(named), rest
