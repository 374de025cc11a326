"""note, save, elapse: steps that leave the lab as it is."""

from __future__ import annotations

import time

from kubewire.components.kernel.features import has_virtual_time
from kubewire.scenarios.engine.file.duration import seconds, shown
from kubewire.scenarios.engine.file.model import Step
from kubewire.scenarios.engine.run.steps.stage import Done, Stage, StepFailed
from kubewire.scenarios.engine.verbs.base import listed


def note(stage: Stage, step: Step) -> Done:
    return Done("", stage.scene.resolve(step.args).strip())


def elapse(stage: Stage, step: Step) -> Done:
    """Lets time pass, because what happens meanwhile is the subject. With clock: virtual it takes no real time."""
    if stage.case.scenario.clock == "virtual" and not has_virtual_time():
        raise StepFailed(f"{shown(seconds(step.args))} would really pass here; the scenario wants virtual time")
    time.sleep(seconds(step.args))
    return Done(f"{shown(seconds(step.args))} later")


def save(stage: Stage, step: Step) -> Done:
    values = {name: stage.scene.resolve(value) for name, value in step.args.items()}
    stage.scene.saved.update(values)
    return Done("remembered " + listed(f"{name} = {value}" for name, value in values.items()))
