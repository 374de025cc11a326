"""The action `link`: delays, drops or reorders packets at an interface (tc-netem(8)), or restores
it."""

from __future__ import annotations

from kubewire.scenarios.engine.file import faults
from kubewire.scenarios.engine.file.model import Step
from kubewire.scenarios.engine.run.steps.stage import Done, Stage, StepFailed
from kubewire.scenarios.engine.scene.scene import Scene
from kubewire.scenarios.engine.verbs.base import listed


def link(stage: Stage, step: Step) -> Done:
    """Disturbs the packets that leave an interface, or restores the interface."""
    scene = stage.scene
    args = step.args
    hosts = [args["on"]] if isinstance(args["on"], str) else args["on"]
    names = [end.name for host in hosts for end in scene.source(host)]
    interface = scene.resolve(args.get("interface", "eth0"))
    for host in names:
        if args.get("restore"):
            restore_link(stage, host, interface)
        else:
            _tc(scene, host, faults.install(interface, _qdiscs(scene, host, interface), args))
            stage.faulty[host, interface] = None
    what = "restored" if args.get("restore") else " ".join(faults.discipline(args))
    return Done(f"{interface} of {listed(names)}: {what}")


def restore_link(stage: Stage, host: str, interface: str) -> None:
    """Removes the disturbances that link steps have added to an interface."""
    if command := faults.remove(interface, _qdiscs(stage.scene, host, interface)):
        _tc(stage.scene, host, command)
    stage.faulty.pop((host, interface), None)


def _qdiscs(scene: Scene, host: str, interface: str) -> str:
    return _tc(scene, host, ["tc", "qdisc", "show", "dev", interface])


def _tc(scene: Scene, host: str, command: list[str]) -> str:
    done = scene.lab.exec(host, command)
    if done.returncode:
        errors = done.stderr.decode(errors="replace").strip()
        raise StepFailed(f"{host}: {' '.join(command)}: {errors}")
    return done.text
