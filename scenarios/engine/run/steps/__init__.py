"""The actions of a scenario's steps. ACTIONS lists them; each returns a line that says what it has
done."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from kubewire.scenarios.engine.events.results import StepResult
from kubewire.scenarios.engine.file.model import Step
from kubewire.scenarios.engine.packets.capturing import CaptureFailed
from kubewire.scenarios.engine.run.expect import evaluate
from kubewire.scenarios.engine.run.steps import (
    captures,
    components,
    link,
    notes,
    objects,
    programs,
    waiting,
)
from kubewire.scenarios.engine.run.steps.stage import Done, Stage, StepFailed
from kubewire.scenarios.engine.scene.api import ApiError
from kubewire.scenarios.engine.scene.scene import NotYet, SceneError


def perform(stage: Stage, step: Step) -> StepResult:
    """Performs one step. An error of the scenario or the lab becomes the result and is not
    raised."""
    began = time.monotonic()
    try:
        done = ACTIONS[step.action](stage, step)
    except (
        StepFailed,
        CaptureFailed,
        NotYet,
        SceneError,
        ApiError,
        LookupError,
        OSError,
        ValueError,
    ) as error:
        return StepResult(step, "failed", time.monotonic() - began, _sentence(error))
    failed = [result for result in done.expectations if result.status != "passed"]
    status = failed[0].status if failed else "passed"
    message = done.message or (failed[0].message if failed else "")
    return StepResult(
        step,
        status,
        time.monotonic() - began,
        message,
        done.output,
        done.expectations,
    )


def _sentence(error: Exception) -> str:
    return str(error.args[0]) if isinstance(error, LookupError) and error.args else str(error)


def expect(stage: Stage, step: Step) -> Done:
    return Done("", "", tuple(evaluate(stage.scene, one) for one in step.expectations))


ACTIONS: Mapping[str, Callable[[Stage, Step], Done]] = {
    "note": notes.note,
    "apply": objects.apply,
    "delete": objects.delete,
    "scale": objects.scale,
    "patch": objects.patch,
    "wait": waiting.wait,
    "exec": programs.execute_command,
    "capture": captures.capture,
    "component": components.component,
    "link": link.link,
    "start": programs.start,
    "stop": programs.stop,
    "elapse": notes.elapse,
    "save": notes.save,
    "expect": expect,
}
