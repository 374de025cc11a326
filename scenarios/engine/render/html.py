"""Writes report.html: a single page that loads nothing from elsewhere. Small captures are part of
it, large ones are linked."""

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
    Status,
)
from kubewire.scenarios.engine.file.duration import shown
from kubewire.scenarios.engine.packets.decode import summary
from kubewire.scenarios.engine.render import plot
from kubewire.scenarios.engine.render.sequence import svg

REPORT_FILE = "report.html"
#: Bytes of the largest capture that is embedded in the page.
EMBEDDED_CAPTURE = 400_000
PACKETS_SHOWN = 400
#: Pairs of source and target from which on a table is shown.
GRID_FROM = 4


class HtmlReport:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def handle(self, event: Event) -> None:
        if isinstance(event, RunFinished):
            self.folder.mkdir(parents=True, exist_ok=True)
            page = render(event.result, self.folder)
            (self.folder / REPORT_FILE).write_text(page, encoding="utf-8")


def render(result: RunResult, folder: Path) -> str:
    """The page. folder: contains the files of captures."""
    # Importing Jinja takes 60 ms, so it happens only when a report is written.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = shown
    statuses: tuple[Status, ...] = ("passed", "failed", "error", "skipped")
    return environment.get_template("report.html.j2").render(
        result=result,
        topics=_topics(result.cases),
        counts={status: result.count(status) for status in statuses},
        # Both functions escape all texts.
        picture=lambda capture: Markup(svg(capture.points, capture.sightings)),
        plot=lambda chart: Markup(plot.svg(chart)),
        link=lambda capture: capture_link(capture, folder),
        packets=packet_rows,
        grid=grid,
    )


@dataclass(frozen=True)
class Story:
    """A scenario with its cases."""

    name: str
    title: str
    description: tuple[str, ...]
    cases: tuple[CaseResult, ...]

    @property
    def status(self) -> str:
        """The worst status among its cases."""
        statuses = {case.status for case in self.cases}
        for status in ("error", "failed", "passed"):
            if status in statuses:
                return status
        return "skipped"


def _topics(cases: Sequence[CaseResult]) -> list[tuple[str, list[Story]]]:
    topics = []
    ordered = sorted(cases, key=lambda case: case.case.scenario.topic)
    for topic, group in groupby(ordered, key=lambda case: case.case.scenario.topic):
        by_scenario = groupby(group, key=lambda case: case.case.scenario.name)
        topics.append((topic, [_story(list(members)) for _, members in by_scenario]))
    return topics


def _story(cases: list[CaseResult]) -> Story:
    scenario = cases[0].case.scenario
    parts = scenario.description.split("\n\n")
    paragraphs = tuple(" ".join(part.split()) for part in parts if part.strip())
    return Story(scenario.name, scenario.title, paragraphs, tuple(cases))


def capture_link(capture: CaptureResult, folder: Path) -> str:
    """A data: URI with the capture, or the relative path of its file if it is large or missing."""
    file = folder / capture.file
    try:
        if file.stat().st_size <= EMBEDDED_CAPTURE:
            content = base64.b64encode(file.read_bytes()).decode()
            return f"data:application/octet-stream;base64,{content}"
    except OSError:
        pass
    return capture.file


def packet_rows(capture: CaptureResult) -> list[dict[str, Any]]:
    """One row per sighting. outer: summary of the packet that carries this one, or ""."""
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
    """A table of the results for all pairs of source and target."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    cells: dict[tuple[str, str], Evidence]


def grid(result: ExpectationResult) -> Grid | None:
    """The table of an expectation about many pairs; None if it has too few for a table."""
    if len(result.evidence) < GRID_FROM or not all(item.target for item in result.evidence):
        return None
    sources = tuple(dict.fromkeys(item.source for item in result.evidence))
    targets = tuple(dict.fromkeys(item.target for item in result.evidence))
    return Grid(sources, targets, {(item.source, item.target): item for item in result.evidence})
