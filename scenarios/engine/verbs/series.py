"""series: something is measured at several sizes, and how it grows is judged; the report shows the plot."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from kubewire.scenarios.engine.file.duration import seconds
from kubewire.scenarios.engine.handle import Completed
from kubewire.scenarios.engine.packets.chart import Chart, number, parse
from kubewire.scenarios.engine.scene.scene import End, NotYet, Scene, typed
from kubewire.scenarios.engine.verbs.arguments import Duration, Form, Texts
from kubewire.scenarios.engine.verbs.base import Look, Observation, listed
from kubewire.scenarios.engine.verbs.commands import argv_of, execute, exit_problem

_MULTIPLE = {"type": "number", "exclusiveMinimum": 0}
GROWTH = {
    "type": "object",
    "additionalProperties": {
        "type": "object",
        "additionalProperties": False,
        "properties": {"min": _MULTIPLE, "max": _MULTIPLE},
        "minProperties": 1,
    },
}


@dataclass(frozen=True)
class Series(Look):
    """Measurements at several sizes and how they grow; the report draws them.

    A program or command prints lines of name, x and y between tabs. The judgement is a ratio within one run, because
    the times themselves depend on the machine. It is measured once: another run would not prove the first one wrong.
    """

    x: Annotated[str, "what x is, with its unit"]
    y: Annotated[str, "what y is, with its unit"]
    growth: Annotated[
        Mapping[str, Mapping[str, float]],
        Form(GROWTH),
        "for each name the min and max of y at the greatest x, as a multiple of y at the least x",
    ]
    program: Annotated[str, Form({"type": "string", "pattern": r"^[\w.]+:\w+$"}), "package.module:function"] = ""
    args: Annotated[
        tuple[str | float, ...],
        Form({"type": "array", "items": {"type": ["string", "number"]}}, tuple),
        "the program's",
    ] = ()
    command: Annotated[Texts, "instead of a program: a list of words, or one text for the shell"] = ()
    timeout: Annotated[Duration, "for the whole measurement"] = 120.0

    @classmethod
    def contradiction(cls, args: Mapping[str, Any]) -> tuple[str, str] | None:
        return ("", "needs program or command") if ("program" in args) == ("command" in args) else None

    def look(self, scene: Scene, source: End) -> Observation:
        began = time.monotonic()
        done = self._run(scene, source, scene.left(seconds(self.timeout)))
        argv = argv_of(self.command) if self.command else ["python", "-m", self.program, *map(str, self.args)]
        if why := exit_problem(done, 0):
            return Observation(False, typed(source, shlex.join(argv)), why, why, final=True)
        chart = parse(done.text, self.x, self.y)
        why = "; ".join(self._problems(chart))
        return Observation(
            holds=not why,
            command=typed(source, shlex.join(argv)),
            seen=listed(f"{line.name}: x{number(line.growth)}" for line in chart.lines),
            why=why,
            detail=table(chart),
            latency=time.monotonic() - began,
            final=True,
            chart=chart,
        )

    def _run(self, scene: Scene, source: End, timeout: float) -> Completed:
        if self.command:
            return execute(scene, source, argv_of(self.command), timeout)
        try:
            running = scene.lab.start(source.target, main=self.program, args=[str(arg) for arg in self.args])
        except LookupError as error:
            raise NotYet(str(error)) from error
        try:
            return running.wait(timeout)
        except TimeoutError:
            raise NotYet(f"{self.program} took longer than {timeout:g} s") from None
        finally:
            running.stop()

    def _problems(self, chart: Chart) -> Iterator[str]:
        lines = {line.name: line for line in chart.lines}
        for name, limits in self.growth.items():
            if name not in lines:
                yield f"no series {name!r}; there are {listed(lines)}"
                continue
            growth = lines[name].growth
            if growth < limits.get("min", 0):
                yield f"{name}: grew to {number(growth)} times, at least {number(limits['min'])} expected"
            if growth > limits.get("max", float("inf")):
                yield f"{name}: grew to {number(growth)} times, at most {number(limits['max'])} expected"


def table(chart: Chart) -> str:
    """A row per series, a column per x."""
    columns = sorted({at for line in chart.lines for at, _ in line.points})
    width = max(len(chart.x), *(len(line.name) for line in chart.lines)) if chart.lines else len(chart.x)
    rows = [f"{chart.x:<{width}}" + "".join(f"{number(at):>10}" for at in columns) + f"   ({chart.y})"]
    for line in chart.lines:
        values = dict(line.points)
        cells = "".join(f"{number(values[at]) if at in values else '':>10}" for at in columns)
        rows.append(f"{line.name:<{width}}{cells}")
    return "\n".join(rows)


VERBS = {"series": Series}
