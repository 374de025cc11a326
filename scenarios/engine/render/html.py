"""report.html: one file, nothing loaded from elsewhere, captures inside it (or next to it when they are big)."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from kubewire.scenarios.engine.events.results import (
    CaptureResult,
    CaseResult,
    Event,
    Evidence,
    ExpectationResult,
    RunFinished,
    RunResult,
)
from kubewire.scenarios.engine.file.duration import shown
from kubewire.scenarios.engine.packets.decode import summary
from kubewire.scenarios.engine.render import plot
from kubewire.scenarios.engine.render.sequence import svg

REPORT_FILE = "report.html"
#: bytes; bigger captures are linked, not put into the page
EMBEDDED_CAPTURE = 400_000
PACKETS_SHOWN = 400
GRID_FROM = 4


class HtmlReport:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def handle(self, event: Event) -> None:
        if isinstance(event, RunFinished):
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / REPORT_FILE).write_text(render(event.result, self.folder), encoding="utf-8")


def render(result: RunResult, folder: Path) -> str:
    """The page. folder: where the captures' files are."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # 60 ms: only when a report is written
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = shown
    return environment.get_template("report.html.j2").render(
        result=result,
        topics=_topics(result.cases),
        counts={status: result.count(status) for status in ("passed", "failed", "error", "skipped")},
        picture=lambda capture: Markup(svg(capture.points, capture.sightings)),  # svg() escapes all texts
        plot=lambda chart: Markup(plot.svg(chart)),  # as does this one
        link=lambda capture: capture_link(capture, folder),
        packets=packet_rows,
        grid=grid,
    )


@dataclass(frozen=True)
class Story:
    """A scenario with its cases (variants, cells of the matrix)."""

    name: str
    title: str
    description: tuple[str, ...]
    cases: tuple[CaseResult, ...]

    @property
    def status(self) -> str:
        """The worst of its cases."""
        statuses = {case.status for case in self.cases}
        return next((status for status in ("error", "failed", "passed") if status in statuses), "skipped")


def _topics(cases: Sequence[CaseResult]) -> list[tuple[str, list[Story]]]:
    ordered = sorted(cases, key=lambda case: case.case.scenario.topic)
    return [
        (topic, [_story(list(members)) for _, members in groupby(group, key=lambda case: case.case.scenario.name)])
        for topic, group in groupby(ordered, key=lambda case: case.case.scenario.topic)
    ]


def _story(cases: list[CaseResult]) -> Story:
    scenario = cases[0].case.scenario
    paragraphs = tuple(" ".join(part.split()) for part in scenario.description.split("\n\n") if part.strip())
    return Story(scenario.name, scenario.title, paragraphs, tuple(cases))


def capture_link(capture: CaptureResult, folder: Path) -> str:
    """A data: URI, or the file's relative path when it is big or gone."""
    file = folder / capture.file
    try:
        if file.stat().st_size <= EMBEDDED_CAPTURE:
            return "data:application/octet-stream;base64," + base64.b64encode(file.read_bytes()).decode()
    except OSError:
        pass
    return capture.file


def packet_rows(capture: CaptureResult) -> list[dict[str, Any]]:
    """One row per sighting; outer is "" for a packet that nothing carries."""
    began = capture.sightings[0].time if capture.sightings else 0
    rows = []
    for one in capture.sightings[:PACKETS_SHOWN]:
        *outer, inner = summary(one.packet).split(" | ")
        rows.append(
            {
                "time": f"{(one.time - began) / 1e6:.3f}",
                "point": one.point,
                "way": "out" if one.outbound else "in",
                "outer": " | ".join(outer),
                "inner": inner,
                "length": one.packet.length,
            }
        )
    return rows


@dataclass(frozen=True)
class Grid:
    """Who reaches whom."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    cells: dict[tuple[str, str], Evidence]


def grid(result: ExpectationResult) -> Grid | None:
    """For expectations about many pairs; None: too few for a table."""
    if len(result.evidence) < GRID_FROM or not all(item.target for item in result.evidence):
        return None
    sources = tuple(dict.fromkeys(item.source for item in result.evidence))
    targets = tuple(dict.fromkeys(item.target for item in result.evidence))
    return Grid(sources, targets, {(item.source, item.target): item for item in result.evidence})
