"""The action `component`: stops, kills, starts or restarts a component of the lab."""

from __future__ import annotations

from kubewire.scenarios.engine.file.model import Step
from kubewire.scenarios.engine.handle import ComponentAction
from kubewire.scenarios.engine.run.steps.stage import Done, Stage
from kubewire.scenarios.engine.verbs.base import listed


def component(stage: Stage, step: Step) -> Done:
    scene = stage.scene
    args = step.args
    hosts = [args["on"]] if isinstance(args["on"], str) else args["on"]
    names = [end.name for host in hosts for end in scene.source(host)]
    for host in names:
        key = (args["name"], host)
        actions: tuple[ComponentAction, ...] = (args["action"],)
        if args["action"] == "restart":
            actions = ("kill", "start")
        for action in actions:
            scene.lab.component(args["name"], host, action)
        if actions[-1] == "start":
            stage.disturbed[:] = [other for other in stage.disturbed if other != key]
        elif key not in stage.disturbed:
            stage.disturbed.append(key)
    return Done(f"{args['action']} {args['name']} on {listed(names)}")
