"""The results of a run, and its events. They are frozen, so several renderers and threads can share
them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from kubewire.scenarios.engine.file.model import Case, Expectation, Step
from kubewire.scenarios.engine.file.spec import LabSpec
from kubewire.scenarios.engine.packets.capturing import Sighting
from kubewire.scenarios.engine.packets.chart import Chart

Status = Literal["passed", "failed", "error", "skipped"]


@dataclass(frozen=True)
class Evidence:
    """The last look of an expectation at one pair of source and target.

    seen: what was observed. why: why this is not what was expected.
    tries: number of looks. seconds: time until it held or was given up.
    blind: nothing could be observed. final: another look could not have changed the result.
    """

    source: str
    target: str
    holds: bool
    command: str
    seen: str
    why: str = ""
    detail: str = ""
    latency: float | None = None
    tries: int = 1
    seconds: float = 0.0
    sightings: tuple[Sighting, ...] = ()
    blind: bool = False
    final: bool = False
    chart: Chart | None = None


@dataclass(frozen=True)
class ExpectationResult:
    """The result of an expectation. status: passed, failed (something else was observed) or error
    (nothing could be observed)."""

    expectation: Expectation
    status: Status
    evidence: tuple[Evidence, ...]
    seconds: float
    message: str = ""

    @property
    def title(self) -> str:
        """The name of the expectation, or its verb."""
        return self.expectation.name or self.expectation.verb


@dataclass(frozen=True)
class StepResult:
    """The result of a step. message: why it failed, or one line about what it did. output: that of
    an exec, or the text of a note."""

    step: Step
    status: Status
    seconds: float
    message: str = ""
    output: str = ""
    expectations: tuple[ExpectationResult, ...] = ()


@dataclass(frozen=True)
class CaptureResult:
    """A finished capture. file: path relative to the results folder. dropped: packets that the
    kernel could not deliver."""

    name: str
    file: str
    points: tuple[str, ...]
    sightings: tuple[Sighting, ...]
    total: int
    dropped: int = 0


@dataclass(frozen=True)
class CaseResult:
    """The result of a case. reason: why it was skipped or could not run."""

    case: Case
    status: Status
    seconds: float
    steps: tuple[StepResult, ...] = ()
    captures: tuple[CaptureResult, ...] = ()
    reason: str = ""
    namespace: str = ""

    @property
    def expectations(self) -> tuple[ExpectationResult, ...]:
        """The expectations of all steps."""
        return tuple(result for step in self.steps for result in step.expectations)

    @property
    def problem(self) -> str:
        """The first failure in one line; "" if there is none."""
        if self.reason:
            return self.reason
        for step in self.steps:
            for result in step.expectations:
                if result.status in ("failed", "error"):
                    return f"{result.title}: {result.message}"
            if step.status in ("failed", "error"):
                return f"{step.step.name or step.step.action}: {step.message}"
        return ""


@dataclass(frozen=True)
class RunResult:
    """The results of all cases, including those that did not run (skipped)."""

    cases: tuple[CaseResult, ...]
    seconds: float
    labs: int = 0
    interrupted: bool = False

    def count(self, status: Status) -> int:
        return sum(case.status == status for case in self.cases)


@dataclass(frozen=True)
class RunStarted:
    cases: tuple[Case, ...]
    labs: int


@dataclass(frozen=True)
class LabStarting:
    name: str
    spec: LabSpec
    cases: int


@dataclass(frozen=True)
class LabReady:
    name: str
    spec: LabSpec
    seconds: float


@dataclass(frozen=True)
class LabFailed:
    name: str
    spec: LabSpec
    message: str


@dataclass(frozen=True)
class LabStopped:
    name: str
    seconds: float


@dataclass(frozen=True)
class LabKept:
    """The lab of a failed case keeps running. commands: command lines to inspect it."""

    name: str
    commands: tuple[str, ...]


@dataclass(frozen=True)
class CaseStarted:
    case: Case
    lab: str
    number: int
    total: int


@dataclass(frozen=True)
class StepStarted:
    case: Case
    step: Step
    number: int
    total: int


@dataclass(frozen=True)
class StepFinished:
    case: Case
    result: StepResult
    number: int


@dataclass(frozen=True)
class CaseFinished:
    result: CaseResult


@dataclass(frozen=True)
class RunFinished:
    result: RunResult
    files: tuple[str, ...] = field(default=())


Event = (
    RunStarted
    | LabStarting
    | LabReady
    | LabFailed
    | LabStopped
    | LabKept
    | CaseStarted
    | StepStarted
    | StepFinished
    | CaseFinished
    | RunFinished
)
