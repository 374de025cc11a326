"""The actions `note`, `save` and `elapse`, which do not change the lab."""

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
    """Waits, because the scenario is about what happens in that time, such as a timeout of the
    kernel. With clock: virtual it takes no real time."""
    duration = shown(seconds(step.args))
    if stage.case.scenario.clock == "virtual" and not has_virtual_time():
        raise StepFailed(
            f"{duration} would really pass here, but the scenario needs virtual time; "
            "run it in a virtual machine (kubewire run --vm uml)"
        )
    time.sleep(seconds(step.args))
    return Done(f"{duration} later")


def save(stage: Stage, step: Step) -> Done:
    values = {name: stage.scene.resolve(value) for name, value in step.args.items()}
    stage.scene.saved.update(values)
    return Done("saved " + listed(f"{name} = {value}" for name, value in values.items()))
