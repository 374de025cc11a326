"""The actions `exec`, `start` and `stop`, which run programs on hosts and in pods."""

from __future__ import annotations

from kubewire.scenarios.engine.file.duration import seconds
from kubewire.scenarios.engine.file.model import Step
from kubewire.scenarios.engine.run.steps.stage import Done, Stage, StepFailed
from kubewire.scenarios.engine.verbs.base import listed
from kubewire.scenarios.engine.verbs.commands import argv_of, execute, exit_problem


def execute_command(stage: Stage, step: Step) -> Done:
    scene = stage.scene
    args = step.args
    source = scene.source(scene.resolve(args["from"]))[0]
    command = args["command"]
    argv = argv_of(tuple(scene.resolve([command] if isinstance(command, str) else command)))
    done = execute(scene, source, argv, scene.left(seconds(args.get("timeout", 30))))
    if problem := exit_problem(done, args.get("exit", 0)):
        raise StepFailed(f"{source.name}: {problem}")
    if name := args.get("save"):
        scene.saved[name] = done.text.strip()
    return Done(
        f"{source.name}$ {argv[-1] if argv[0] == 'sh' else ' '.join(argv)}",
        done.text.rstrip(),
    )


def start(stage: Stage, step: Step) -> Done:
    """Starts a program that runs until a stop step or the end of the case."""
    scene = stage.scene
    args = step.args
    name = args["program"]
    source = scene.source(scene.resolve(args["on"]))[0]
    if name in stage.programs:
        raise StepFailed(f"program {name!r} is already running; stop it first")
    command = args["command"]
    argv = argv_of(tuple(scene.resolve([command] if isinstance(command, str) else command)))
    stage.programs[name] = scene.lab.start(source.target, argv=argv)
    return Done(f"{source.name}$ {argv[-1] if argv[0] == 'sh' else ' '.join(argv)} &")


def stop(stage: Stage, step: Step) -> Done:
    if step.args not in stage.programs:
        running = listed(stage.programs) or "none"
        raise StepFailed(f"no program {step.args!r} is running; running programs: {running}")
    done = stage.programs.pop(step.args).stop()
    return Done(f"stopped {step.args}", (done.text + done.stderr.decode(errors="replace")).rstrip())
