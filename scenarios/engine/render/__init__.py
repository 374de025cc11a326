"""Renderers: what is made of a run's events. A new one is a class and a line in renderers()."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Protocol

from kubewire.scenarios.engine.events.options import RunOptions
from kubewire.scenarios.engine.events.results import Event


class Renderer(Protocol):
    """Is told every event, one at a time, from whichever thread."""

    def handle(self, event: Event) -> None: ...


def renderers(options: RunOptions) -> Sequence[Renderer]:
    """Terminal, JSON (which --resume reads), JUnit XML and HTML."""
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
        Terminal(options, sys.stdout),  # last: it says where the reports are
    ]
