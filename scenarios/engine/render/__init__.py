"""Renderers turn the events of a run into reports. A new one is a class and a line in
renderers()."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Protocol

from kubewire.scenarios.engine.events.options import RunOptions
from kubewire.scenarios.engine.events.results import Event


class Renderer(Protocol):
    """Receives all events, one at a time, from any thread."""

    def handle(self, event: Event) -> None: ...


def renderers(options: RunOptions) -> Sequence[Renderer]:
    """The renderers of a run: JSON (which --resume reads), JUnit XML, HTML and the terminal."""
    from kubewire.scenarios.engine.events.exchange import EventFile
    from kubewire.scenarios.engine.render.html import HtmlReport
    from kubewire.scenarios.engine.render.jsonfile import JsonFile
    from kubewire.scenarios.engine.render.junit import JUnitFile
    from kubewire.scenarios.engine.render.terminal import Terminal

    events = [EventFile(options.events.open("w"))] if options.events else []
    return [
        *events,
        JsonFile(options.results),
        JUnitFile(options.results),
        HtmlReport(options.results),
        Terminal(options, sys.stdout),  # last, because it prints the path of the report
    ]
