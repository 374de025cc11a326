"""How a run is to be done: what the command line or a caller asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

#: Name of a kernel feature -> why this machine lacks it; "" when it is there.
MissingFeature = Callable[[str], str]


def everything_there(feature: str) -> str:
    """The default: nothing is known to be missing."""
    return ""


@dataclass(frozen=True)
class RunOptions:
    """jobs: labs at the same time. keyword: of pytest's -k kind ("nat and not broken"), on ids, titles and tags.

    results: folder for report.html, junit.xml, results.json and captures/. keep: leave a failed case's lab up
    until the user says so. resume: run only what has not passed in results.json. color: None: if a terminal.
    verbose: evidence in full. missing: asked for each of a scenario's `requires`.
    """

    results: Path = Path("results")
    keyword: str = ""
    jobs: int = 1
    keep: bool = False
    resume: bool = False
    list_only: bool = False
    stop_at_first: bool = False
    verbose: bool = False
    quiet: bool = False
    color: bool | None = None
    missing: MissingFeature = everything_there
