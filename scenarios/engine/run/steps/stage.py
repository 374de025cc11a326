"""What a step works on and what it says, and how it waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from kubewire.scenarios.engine.events.results import ExpectationResult
from kubewire.scenarios.engine.file.duration import shown
from kubewire.scenarios.engine.file.model import Case
from kubewire.scenarios.engine.handle import Background
from kubewire.scenarios.engine.scene.scene import NotYet, Scene

#: Seconds that a step waits at most, unless it says otherwise.
DEFAULT_WAIT = 60.0


class StepFailed(Exception):
    """A step that could not do what it says; the text says why."""


@dataclass(frozen=True)
class Done:
    """What a step has done. message: in one line; output: what a person may want to read."""

    message: str
    output: str = ""
    expectations: tuple[ExpectationResult, ...] = ()


@dataclass
class Stage:
    """A scene, and what has to be put back when the case ends: components, by (name, host); links; programs."""

    scene: Scene
    case: Case
    disturbed: list[tuple[str, str]]
    faulty: dict[tuple[str, str], None] = field(default_factory=dict)
    programs: dict[str, Background] = field(default_factory=dict)


def poll(scene: Scene, look: Callable[[], str], within: float, what: str) -> float:
    """Calls look until it returns ""; returns the seconds that took. Raises StepFailed with its last words."""
    began, pause, within = time.monotonic(), 0.03, scene.left(within)
    while True:
        try:
            problem = look()
        except NotYet as error:
            problem = str(error)
        took = time.monotonic() - began
        if not problem:
            return took
        if took >= within:
            raise StepFailed(f"{what}: not within {shown(within)}{scene.late}: {problem}")
        scene.pause(min(pause, within - took))
        pause = min(pause * 1.4, 0.3)
