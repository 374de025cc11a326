"""What a verb is and what it returns, an Observation; and how texts, counts and lists are judged."""

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
    """One look. command: what a person types to see the same; seen: in one line; detail: all of it.

    why: when it does not hold, what is missing. latency: seconds that the observed thing took.
    sightings: packets that prove it, in the packet's order. blind: there was nothing to look at (no such pod
    yet), which proves nothing, also not the contrary. final: looking again cannot change it. chart: measured series.
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
    """A verb that looks by itself."""

    def look(self, scene: Scene, source: End) -> Observation:
        """One look. Raises NotYet (look again), SceneError (no use), TimeoutError."""
        raise NotImplementedError


@dataclass(frozen=True)
class Probe(Arguments):
    """A verb that sends something from the source: requests of one source go out in one probe process."""

    PROGRAM: ClassVar[str] = ""

    def request(self) -> dict[str, Any]:
        """For the probe program."""
        raise NotImplementedError

    def judge(self, result: Mapping[str, Any], source: End) -> Observation:
        """What the program's result means."""
        raise NotImplementedError


@dataclass(frozen=True)
class Count:
    """How many: exactly (low == high), or between; high None: no limit."""

    low: int = 1
    high: int | None = None

    @classmethod
    def of(cls, value: int | Mapping[str, int]) -> Count:
        """3, {min: 1}, {max: 5}, {min: 1, max: 5}."""
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
    """What is wrong with a text, "" when nothing. matches and absent are regular expressions (re.search)."""
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
            return f"/{pattern}/ should not be there: {quoted(found[0])}"
    return ""


def quoted(text: str, limit: int = 100) -> str:
    """A text in one line, in quotes, shortened."""
    line = text.strip().replace("\n", "\\n")
    return f'"{line}"' if len(line) <= limit else f'"{line[: limit - 3]}..."'


def listed(items: Iterable[str], nothing: str = "nothing") -> str:
    """Comma-separated, or nothing."""
    return ", ".join(items) or nothing


def first_lines(text: str, limit: int = 40) -> str:
    """The beginning of a long output."""
    lines = text.rstrip().splitlines()
    rest = f"\n... {len(lines) - limit} more lines" if len(lines) > limit else ""
    return "\n".join(lines[:limit]) + rest
