"""The options of a run, as the command line or another caller gives them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event as Flag
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from kubewire.scenarios.engine.events.results import Event
    from kubewire.scenarios.engine.file.model import Case

#: Name of a kernel feature -> why this machine lacks it; "" if it has it.
MissingFeature = Callable[[str], str]


class Elsewhere(Protocol):
    """Runs cases that this machine cannot run on another kernel (virtual machines)."""

    def place(self, case: Case) -> str:
        """The place that can run the case, as a name for people and for run(); "" if none can."""
        ...

    def advice(self, case: Case) -> str:
        """A command line that runs the case; "" if there is none."""
        ...

    def run(
        self,
        place: str,
        cases: Sequence[Case],
        results: Path,
        tell: Callable[[Event], None],
        stopping: Flag,
    ) -> None:
        """Runs the cases, passes their events to tell and copies their captures into results.
        Raises OSError, RuntimeError. Ends early, with all its processes, when stopping is set."""
        ...


def everything_there(feature: str) -> str:
    """The default MissingFeature: assumes that this machine has every feature."""
    return ""


@dataclass(frozen=True)
class RunOptions:
    """The options of a run.

    results: folder for report.html, junit.xml, results.json and captures/.
    keyword: expression as in pytest's -k ("nat and not broken"), on ids, titles and tags.
    jobs: labs that run at the same time.
    keep: keep the lab of a failed case until the user ends it.
    resume: skip cases that have passed according to results.json.
    color: whether the output is coloured; None: if it goes to a terminal.
    verbose: show the evidence in full.
    missing: called with each feature that a case requires.
    elsewhere: runs cases that need a missing feature, if delegate is set.
    only: run only the cases with these ids; empty: all.
    events: file that receives the events as lines of JSON.
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
