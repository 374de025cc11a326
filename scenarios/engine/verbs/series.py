"""The verb `series`: measures something at several sizes and judges how it grows. The report plots
the values."""

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
    """Measurements at several sizes, and how they grow; the report plots them.

    A program or command prints lines of name, x and y, separated by tabs. A ratio of values of the
    same run is judged, because the values themselves depend on the machine. The measurement is made
    once, because another run would not prove the first one wrong.
    """

    x: Annotated[str, "the quantity of x, with its unit"]
    y: Annotated[str, "the quantity of y, with its unit"]
    growth: Annotated[
        Mapping[str, Mapping[str, float]],
        Form(GROWTH),
        "for each name, the min and max of y at the largest x divided by y at the smallest x",
    ]
    program: Annotated[
        str,
        Form({"type": "string", "pattern": r"^[\w.]+:\w+$"}),
        "the program to run, as package.module:function",
    ] = ""
    args: Annotated[
        tuple[str | float, ...],
        Form({"type": "array", "items": {"type": ["string", "number"]}}, tuple),
        "arguments of the program",
    ] = ()
    command: Annotated[
        Texts,
        "a command instead of a program: a list of words, or one text for the shell",
    ] = ()
    timeout: Annotated[Duration, "time for the whole measurement"] = 120.0

    @classmethod
    def contradiction(cls, args: Mapping[str, Any]) -> tuple[str, str] | None:
        if ("program" in args) == ("command" in args):
            return "", "needs either program or command"
        return None

    def look(self, scene: Scene, source: End) -> Observation:
        began = time.monotonic()
        done = self._run(scene, source, scene.left(seconds(self.timeout)))
        argv = ["python", "-m", self.program, *map(str, self.args)]
        if self.command:
            argv = argv_of(self.command)
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
            args = [str(arg) for arg in self.args]
            running = scene.lab.start(source.target, main=self.program, args=args)
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
                yield f"no series {name!r} was measured; series: {listed(lines)}"
                continue
            growth = lines[name].growth
            grew = f"{name} grew by a factor of {number(growth)}"
            if growth < limits.get("min", 0):
                yield f"{grew}, expected at least {number(limits['min'])}"
            if growth > limits.get("max", float("inf")):
                yield f"{grew}, expected at most {number(limits['max'])}"


def table(chart: Chart) -> str:
    """The values as text, with a row per series and a column per x."""
    columns = sorted({at for line in chart.lines for at, _ in line.points})
    width = max([len(chart.x), *(len(line.name) for line in chart.lines)])
    heads = "".join(f"{number(at):>10}" for at in columns)
    rows = [f"{chart.x:<{width}}{heads}   ({chart.y})"]
    for line in chart.lines:
        values = dict(line.points)
        cells = "".join(f"{number(values[at]) if at in values else '':>10}" for at in columns)
        rows.append(f"{line.name:<{width}}{cells}")
    return "\n".join(rows)


VERBS = {"series": Series}
