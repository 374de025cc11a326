"""The base classes of verbs, their result (an Observation), and the checks of texts and counts.

A verb makes one observation and judges it. It does not wait and does not repeat; run/expect.py does
that for all verbs. So a verb must be cheap, must not change anything in the lab, and must tell "it
is not so" from "it cannot be observed now" (NotYet). Every observation contains a command line with
which a user can make the same observation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from kubewire.scenarios.engine.packets.capturing import Sighting
from kubewire.scenarios.engine.packets.chart import Chart
from kubewire.scenarios.engine.scene.scene import End, Scene
from kubewire.scenarios.engine.verbs.arguments import Arguments, Form


@dataclass(frozen=True)
class Observation:
    """The result of one look.

    command: a command line with which a user sees the same. seen: the result in one line.
    detail: the result in full. why: why the expectation does not hold.
    latency: seconds that the observed exchange took.
    sightings: packets that prove the result, in the order of their way.
    blind: nothing could be observed, for example because a pod does not exist yet; this proves
    neither the expectation nor its contrary. final: another look cannot change the result.
    chart: measured values.
    """

    holds: bool
    command: str
    seen: str
    why: str = ""
    detail: str = ""
    latency: float | None = None
    sightings: tuple[Sighting, ...] = ()
    blind: bool = False
    final: bool = False
    chart: Chart | None = None


@dataclass(frozen=True)
class Look(Arguments):
    """A verb that makes its observation in this process, through the lab handle and the API."""

    def look(self, scene: Scene, source: End) -> Observation:
        """Looks once. Raises NotYet (trying again may help), SceneError (it does not help),
        TimeoutError."""
        raise NotImplementedError


@dataclass(frozen=True)
class Probe(Arguments):
    """A verb that sends something from the source. All requests of one source go out in one probe
    process."""

    PROGRAM: ClassVar[str] = ""

    def request(self) -> dict[str, Any]:
        """The request for the probe program."""
        raise NotImplementedError

    def judge(self, result: Mapping[str, Any], source: End) -> Observation:
        """Judges the program's result."""
        raise NotImplementedError


@dataclass(frozen=True)
class Count:
    """A range of numbers, from low to high; high is None if there is no limit."""

    low: int = 1
    high: int | None = None

    @classmethod
    def of(cls, value: int | Mapping[str, int]) -> Count:
        """Reads the form of scenario files: 3, {min: 1}, {max: 5} or {min: 1, max: 5}."""
        if isinstance(value, int):
            return cls(value, value)
        return cls(value.get("min", 0), value.get("max"))

    def holds(self, number: int) -> bool:
        return self.low <= number and (self.high is None or number <= self.high)

    def __str__(self) -> str:
        if self.high is None:
            return f"{self.low} or more"
        return f"exactly {self.low}" if self.low == self.high else f"{self.low} to {self.high}"


AT_LEAST_ONE = Count()
Counted = Annotated[Count, Form({"$ref": "#/$defs/count"}, Count.of)]


def text_problem(
    text: str,
    *,
    equals: str | int | None = None,
    contains: Sequence[str] = (),
    matches: Sequence[str] = (),
    absent: Sequence[str] = (),
) -> str:
    """Why a text is not as expected; "" if it is. matches and absent are regular expressions (for
    re.search)."""
    if equals is not None and text.strip() != str(equals).strip():
        return f"expected {quoted(str(equals))}, got {quoted(text)}"
    for part in contains:
        if part not in text:
            return f"does not contain {quoted(part)}: {quoted(text)}"
    for pattern in matches:
        if not re.search(pattern, text, re.MULTILINE):
            return f"nothing matches /{pattern}/ in {quoted(text)}"
    for pattern in absent:
        if found := re.search(pattern, text, re.MULTILINE):
            return f"/{pattern}/ should not be there, but matches {quoted(found[0])}"
    return ""


def quoted(text: str, limit: int = 100) -> str:
    """A text in quotes, in one line, shortened to limit characters."""
    line = text.strip().replace("\n", "\\n")
    return f'"{line}"' if len(line) <= limit else f'"{line[: limit - 3]}..."'


def listed(items: Iterable[str], nothing: str = "nothing") -> str:
    """The items, separated by commas; the text `nothing` if there are none."""
    return ", ".join(items) or nothing


def first_lines(text: str, limit: int = 40) -> str:
    """The first lines of a text, and the number of the others."""
    lines = text.rstrip().splitlines()
    rest = f"\n... {len(lines) - limit} more lines" if len(lines) > limit else ""
    return "\n".join(lines[:limit]) + rest
