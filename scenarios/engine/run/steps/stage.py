"""What a step works on, what it returns, and how it waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from kubewire.scenarios.engine.events.results import ExpectationResult
from kubewire.scenarios.engine.file.duration import shown
from kubewire.scenarios.engine.file.model import Case
from kubewire.scenarios.engine.handle import Background
from kubewire.scenarios.engine.scene.scene import NotYet, Scene

#: Seconds that a step waits at most, unless the file gives another time.
DEFAULT_WAIT = 60.0


class StepFailed(Exception):
    """A step could not do its work; the text says why."""


@dataclass(frozen=True)
class Done:
    """What a step has done. message: one line about it. output: text that users may want to
    read."""

    message: str
    output: str = ""
    expectations: tuple[ExpectationResult, ...] = ()


@dataclass
class Stage:
    """A scene, and what must be undone when the case ends.

    disturbed: stopped components as (name, host). faulty: disturbed links as (host, interface).
    programs: running programs by name.
    """

    scene: Scene
    case: Case
    disturbed: list[tuple[str, str]]
    faulty: dict[tuple[str, str], None] = field(default_factory=dict)
    programs: dict[str, Background] = field(default_factory=dict)


def poll(scene: Scene, look: Callable[[], str], within: float, what: str) -> float:
    """Calls look until it returns "", which means that nothing is missing. Returns the seconds that
    this took. Raises StepFailed with the last text that look returned."""
    began = time.monotonic()
    pause = 0.03
    within = scene.left(within)
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
