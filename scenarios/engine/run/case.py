"""One case: its objects are applied, its steps performed, and everything it changed is put back."""

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
    """tell: gets the events of the steps. results: folder for captures. keep: leave a failed case's objects there."""

    stage: Stage
    tell: Callable[[Event], None]
    results: Path
    keep: bool
    steps: list[StepResult] = field(default_factory=list)

    def run(self) -> CaseResult:
        """Never raises for what a scenario, the engine or the lab can do wrong."""
        began, case, scene = time.monotonic(), self.stage.case, self.stage.scene
        try:
            self.steps.append(self._prepare())
            if self.steps[-1].status == "passed":
                self._run_steps()
        except Exception as error:  # a fault of the engine or the lab fails this case, not the others
            text = "".join(traceback.format_exception(error))
            self.steps.append(StepResult(PREPARE, "error", 0.0, f"{type(error).__name__}: {error}", text))
        finally:
            self._put_back()
        captures = tuple(self._keep_capture(capture) for capture in scene.captures.values())
        status = _worst(self.steps)
        if not (self.keep and status != "passed"):
            self._clean()
        took = time.monotonic() - began
        return CaseResult(case, status, took, tuple(self.steps), captures, namespace=scene.namespace)

    def _prepare(self) -> StepResult:
        """Makes the namespace, applies the objects and waits for the fixtures' pods."""
        began, scene, case = time.monotonic(), self.stage.scene, self.stage.case
        self.tell(StepStarted(case, PREPARE, 0, len(case.variant.steps)))
        if not case.lab.kubernetes:
            result = StepResult(PREPARE, "passed", 0.0, "nothing to prepare")
            self.tell(StepFinished(case, result, 0))
            return result
        try:
            namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": scene.namespace}}
            scene.cluster.apply(namespace, "")
            usable(scene, scene.namespace, case.scenario.timeouts.ready)
            names = apply_objects(scene, case.variant.objects)
            ready(scene, case.variant.objects, case.scenario.timeouts.ready)
            message = f"{', '.join(names)} ready" if names else "nothing to prepare"
            result = StepResult(PREPARE, "passed", time.monotonic() - began, message)
        except (StepFailed, NotYet, SceneError, ApiError, LookupError, OSError, KubeconfigError) as error:
            result = StepResult(PREPARE, "error", time.monotonic() - began, str(error))
        self.tell(StepFinished(case, result, 0))
        return result

    def _run_steps(self) -> None:
        stage, case = self.stage, self.stage.case
        total = len(case.variant.steps)
        for number, step in enumerate(case.variant.steps, 1):
            self.tell(StepStarted(case, step, number, total))
            if time.monotonic() > stage.scene.deadline:
                spent = f"the case took longer than {case.scenario.timeouts.case:g} s"
                result = StepResult(step, "error", 0.0, spent)
            else:
                result = perform(stage, step)
            self.steps.append(result)
            self.tell(StepFinished(case, result, number))
            # Later expectations would only fail again for the same reason, after waiting their whole time.
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
            pcapng.write(stream, merged.interfaces, merged.records, f"kubewire: {self.stage.case.id}, capture {short}")
        seen = tuple(sightings(merged))
        return CaptureResult(short, str(file), capture.points, seen, len(seen), sum(merged.dropped))

    def _put_back(self) -> None:
        """Ends captures and programs, starts components, restores links: the next case finds the lab as it was."""
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
        """Deletes the case's namespace and those among its manifests, without waiting: the next case has its own."""
        if not self.stage.case.lab.kubernetes:
            return
        scene = self.stage.scene
        made = [item["metadata"]["name"] for item in self.stage.case.variant.objects if item["kind"] == "Namespace"]
        for name in (scene.namespace, *made):
            with contextlib.suppress(ApiError, NotYet, SceneError):
                scene.cluster.delete(NAMESPACES, scene.resolve(name))


def _worst(steps: Sequence[StepResult]) -> Status:
    order: tuple[Status, ...] = ("error", "failed", "passed")
    return next((status for status in order if any(step.status == status for step in steps)), "passed")
