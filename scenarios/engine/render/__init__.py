"""Renderers: what is made of a run's events. A new one is a class and a line in renderers()."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Protocol

from scenarios.engine.options import RunOptions
from scenarios.engine.results import Event


class Renderer(Protocol):
    """Is told every event, one at a time, from whichever thread."""

    def handle(self, event: Event) -> None: ...


def renderers(options: RunOptions) -> Sequence[Renderer]:
    """Terminal, JSON (which --resume reads), JUnit XML and HTML."""
    from scenarios.engine.exchange import EventFile
    from scenarios.engine.render.html import HtmlReport
    from scenarios.engine.render.jsonfile import JsonFile
    from scenarios.engine.render.junit import JUnitFile
    from scenarios.engine.render.terminal import Terminal

    events = [EventFile(options.events.open("w"))] if options.events else []
    return [
        *events,
        JsonFile(options.results),
        JUnitFile(options.results),
        HtmlReport(options.results),
        Terminal(options, sys.stdout),  # last: it says where the reports are
    ]
