"""The action `capture`: starts or stops capturing packets at interfaces."""

from __future__ import annotations

from kubewire.scenarios.engine.file.model import Step
from kubewire.scenarios.engine.packets.capturing import RunningCapture, compile_filter, locate
from kubewire.scenarios.engine.run.steps.stage import Done, Stage, StepFailed
from kubewire.scenarios.engine.verbs.base import listed


def capture(stage: Stage, step: Step) -> Done:
    scene = stage.scene
    args = step.args
    if name := args.get("stop"):
        if name not in scene.captures:
            running = listed(scene.captures) or "none"
            raise StepFailed(f"no capture {name!r} has been started; captures: {running}")
        scene.captures[name].stop()
        return Done(f"stopped capture {name}")
    points = [scene.resolve(point) for point in args["on"]]

    def find_pod(text: str) -> tuple[str, str]:
        end = scene.source(f"pod:{text}")[0]
        return end.node, end.ip

    located = [locate(point, find_pod, scene.hosts) for point in points]
    expression = scene.resolve(args.get("filter", ""))
    name = args["start"]
    if old := scene.captures.pop(name, None):
        old.stop()
    scene.captures[name] = RunningCapture.start(
        scene.lab,
        f"{scene.slug}-{name}",
        located,
        scene.lab.state_dir / "captures",
        program=compile_filter(expression) if expression else (),
        max_packets=args.get("maxPackets", 20_000),
        max_seconds=args.get("maxSeconds", 600.0),
    )
    return Done(f"capturing at {listed(points)}")
