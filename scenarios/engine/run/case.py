"""Runs one case: applies its objects, performs its steps, and undoes what it changed in the lab.

Cases share a lab because starting one takes seconds. So one rule always holds: after a case,
whether it passed, failed or raised, the next case finds the lab as it was at the beginning. The
objects of a case live in a namespace of its own, which is deleted. Components that it stopped are
started again, links that it disturbed are restored, and captures and programs end. Deleting the
namespace is not waited for, because the next case has another one.

A step that fails ends the case: the following expectations would fail for the same reason, after
waiting their whole time.
"""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kubewire.components.kubeapi.kubeconfig import KubeconfigError
from kubewire.components.kubeapi.resources import NAMESPACES
from kubewire.scenarios.engine.events.results import (
    CaptureResult,
    CaseResult,
    Event,
    Status,
    StepFinished,
    StepResult,
    StepStarted,
)
from kubewire.scenarios.engine.file.model import Step
from kubewire.scenarios.engine.packets import pcapng
from kubewire.scenarios.engine.packets.capturing import RunningCapture, sightings
from kubewire.scenarios.engine.run.steps import perform
from kubewire.scenarios.engine.run.steps.link import restore_link
from kubewire.scenarios.engine.run.steps.objects import apply_objects, usable
from kubewire.scenarios.engine.run.steps.stage import Stage, StepFailed
from kubewire.scenarios.engine.run.steps.waiting import ready
from kubewire.scenarios.engine.scene.api import ApiError
from kubewire.scenarios.engine.scene.scene import NotYet, SceneError

PREPARE = Step("prepare", None, name="Preparation")


@dataclass
class CaseRun:
    """A run of one case.

    tell: receives the events of the steps. results: folder for captures. keep: do not delete the
    objects of a case that does not pass.
    """

    stage: Stage
    tell: Callable[[Event], None]
    results: Path
    keep: bool
    steps: list[StepResult] = field(default_factory=list)

    def run(self) -> CaseResult:
        """Runs the case. An error of the scenario, the engine or the lab becomes part of the
        result and is not raised."""
        began = time.monotonic()
        case = self.stage.case
        scene = self.stage.scene
        try:
            self.steps.append(self._prepare())
            if self.steps[-1].status == "passed":
                self._run_steps()
        except Exception as error:  # a bug of the engine or the lab fails only this case
            text = "".join(traceback.format_exception(error))
            message = f"{type(error).__name__}: {error}"
            self.steps.append(StepResult(PREPARE, "error", 0.0, message, text))
        finally:
            self._put_back()
        captures = tuple(self._keep_capture(capture) for capture in scene.captures.values())
        status = _worst(self.steps)
        if not (self.keep and status != "passed"):
            self._clean()
        took = time.monotonic() - began
        return CaseResult(
            case,
            status,
            took,
            tuple(self.steps),
            captures,
            namespace=scene.namespace,
        )

    def _prepare(self) -> StepResult:
        """Makes the namespace, applies the objects and waits for the fixtures' pods."""
        began = time.monotonic()
        scene = self.stage.scene
        case = self.stage.case
        self.tell(StepStarted(case, PREPARE, 0, len(case.variant.steps)))
        if not case.lab.kubernetes:
            result = StepResult(PREPARE, "passed", 0.0, "nothing to prepare")
            self.tell(StepFinished(case, result, 0))
            return result
        try:
            namespace = {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": scene.namespace},
            }
            scene.cluster.apply(namespace, "")
            usable(scene, scene.namespace, case.scenario.timeouts.ready)
            names = apply_objects(scene, case.variant.objects)
            ready(scene, case.variant.objects, case.scenario.timeouts.ready)
            message = f"{', '.join(names)} ready" if names else "nothing to prepare"
            result = StepResult(PREPARE, "passed", time.monotonic() - began, message)
        except (
            StepFailed,
            NotYet,
            SceneError,
            ApiError,
            LookupError,
            OSError,
            KubeconfigError,
        ) as error:
            result = StepResult(PREPARE, "error", time.monotonic() - began, str(error))
        self.tell(StepFinished(case, result, 0))
        return result

    def _run_steps(self) -> None:
        stage = self.stage
        case = stage.case
        total = len(case.variant.steps)
        for number, step in enumerate(case.variant.steps, 1):
            self.tell(StepStarted(case, step, number, total))
            if time.monotonic() > stage.scene.deadline:
                allowed = case.scenario.timeouts.case
                spent = f"the case took longer than {allowed:g} s (timeouts.case)"
                result = StepResult(step, "error", 0.0, spent)
            else:
                result = perform(stage, step)
            self.steps.append(result)
            self.tell(StepFinished(case, result, number))
            if result.status != "passed":
                return

    def _keep_capture(self, capture: RunningCapture) -> CaptureResult:
        """Stops a capture and writes it as one file into the results."""
        capture.stop()
        merged = capture.read()
        short = capture.name.removeprefix(f"{self.stage.scene.slug}-")
        file = Path("captures") / f"{capture.name}.pcapng"
        target = self.results / file
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "wb") as stream:
            pcapng.write(
                stream,
                merged.interfaces,
                merged.records,
                f"kubewire: {self.stage.case.id}, capture {short}",
            )
        seen = tuple(sightings(merged))
        return CaptureResult(short, str(file), capture.points, seen, len(seen), sum(merged.dropped))

    def _put_back(self) -> None:
        """Ends captures and programs, starts stopped components and restores links."""
        for capture in self.stage.scene.captures.values():
            capture.stop()
        for name, host in self.stage.disturbed:
            with contextlib.suppress(Exception):  # the next case reports a broken lab
                self.stage.scene.lab.component(name, host, "start")
        for program in self.stage.programs.values():
            with contextlib.suppress(Exception):
                program.stop()
        for host, interface in list(self.stage.faulty):
            with contextlib.suppress(Exception):
                restore_link(self.stage, host, interface)

    def _clean(self) -> None:
        """Deletes the case's namespace and those that its manifests create, without waiting."""
        if not self.stage.case.lab.kubernetes:
            return
        scene = self.stage.scene
        objects = self.stage.case.variant.objects
        made = [item["metadata"]["name"] for item in objects if item["kind"] == "Namespace"]
        for name in (scene.namespace, *made):
            with contextlib.suppress(ApiError, NotYet, SceneError):
                scene.cluster.delete(NAMESPACES, scene.resolve(name))


def _worst(steps: Sequence[StepResult]) -> Status:
    order: tuple[Status, ...] = ("error", "failed", "passed")
    seen = {step.status for step in steps}
    return next((status for status in order if status in seen), "passed")
