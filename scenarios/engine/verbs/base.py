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
    """What one look has found.

    command: what a person types to see the same. seen: the finding in one line. detail: all of it. why: what is missing
    when it does not hold. latency: seconds that the observed thing took. sightings: packets that prove it, in the order
    of their way. blind: there was nothing to look at, such as a pod that does not exist yet, and so neither the
    expectation nor its contrary is proved. final: another look cannot change it. chart: the measured series.
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
        """What the probe program is asked to do."""
        raise NotImplementedError

    def judge(self, result: Mapping[str, Any], source: End) -> Observation:
        """What the program's result means."""
        raise NotImplementedError


@dataclass(frozen=True)
class Count:
    """How many: from low to high. high is None when there is no limit."""

    low: int = 1
    high: int | None = None

    @classmethod
    def of(cls, value: int | Mapping[str, int]) -> Count:
        """As a file writes it: 3, {min: 1}, {max: 5} or {min: 1, max: 5}."""
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
    """What is wrong with a text; "" when nothing is. matches and absent are regular expressions (re.search)."""
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
    """The items with commas between them, or the word for nothing."""
    return ", ".join(items) or nothing


def first_lines(text: str, limit: int = 40) -> str:
    """The beginning of a long output."""
    lines = text.rstrip().splitlines()
    rest = f"\n... {len(lines) - limit} more lines" if len(lines) > limit else ""
    return "\n".join(lines[:limit]) + rest
