"""How a run is to be done: what the command line or a caller asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event as Flag
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from kubewire.scenarios.engine.events.results import Event
    from kubewire.scenarios.engine.file.model import Case

#: Name of a kernel feature -> why this machine lacks it; "" when it is there.
MissingFeature = Callable[[str], str]


class Elsewhere(Protocol):
    """Somewhere with another kernel: what `kubewire run` hands cases to that this machine cannot run."""

    def place(self, case: Case) -> str:
        """Which of its places can run the case, for people and for run(); "" when none can."""
        ...

    def advice(self, case: Case) -> str:
        """The command that would run it; "" when there is none."""
        ...

    def run(
        self, place: str, cases: Sequence[Case], results: Path, tell: Callable[[Event], None], stopping: Flag
    ) -> None:
        """Run them all; their events go to tell, their captures into results. Raises OSError, RuntimeError.

        Ends early, and everything there with it, when stopping is set.
        """
        ...


def everything_there(feature: str) -> str:
    """The default: nothing is known to be missing."""
    return ""


@dataclass(frozen=True)
class RunOptions:
    """jobs: labs at the same time. keyword: of pytest's -k kind ("nat and not broken"), on ids, titles and tags.

    results: folder for report.html, junit.xml, results.json and captures/. keep: leave a failed case's lab up
    until the user says so. resume: run only what has not passed in results.json. color: None: if a terminal.
    verbose: evidence in full. missing: asked for each feature that a case requires. elsewhere: where to run what
    misses one, if delegate says so. only: these case ids. events: a file that follows the run as lines of JSON.
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
    elsewhere: Elsewhere | None = None
    delegate: bool = False
    only: tuple[str, ...] = ()
    events: Path | None = None
