"""The state that the threads of a run share: the results so far, the renderers that receive events,
and whether the run shall end."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from kubewire.scenarios.engine.events.results import CaseFinished, CaseResult, CaseStarted, Event
from kubewire.scenarios.engine.file.model import Case
from kubewire.scenarios.engine.render import Renderer


@dataclass
class Progress:
    """The progress of a run.

    total: number of cases. stopping: if set, no further case starts. interrupted: if set, running
    cases end too.
    """

    total: int
    renderers: Sequence[Renderer]
    results: list[CaseResult] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)
    interrupted: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _number: int = 0

    def tell(self, event: Event) -> None:
        """Passes an event to all renderers, one event at a time."""
        with self._lock:
            for renderer in self.renderers:
                renderer.handle(event)

    def begin(self, case: Case, lab: str) -> None:
        """Reports that a case starts, and numbers it."""
        with self._lock:
            self._number += 1
            number = self._number
        self.tell(CaseStarted(case, lab, number, self.total))

    def finish(self, result: CaseResult) -> None:
        """Records and reports the result of a case."""
        with self._lock:
            self.results.append(result)
        self.tell(CaseFinished(result))

    def unfinished(self, cases: Sequence[Case]) -> list[Case]:
        """The cases that have no result yet."""
        done = {result.case.id for result in self.results}
        return [case for case in cases if case.id not in done]
