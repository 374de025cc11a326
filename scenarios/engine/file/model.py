"""The content of scenario files after reading and merging, as frozen dataclasses.

The arguments of verbs and steps are still as in the file, because their ${references} can be
replaced only when a step runs. Then they become the dataclasses of the verbs
(kubewire.scenarios.engine.verbs).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from kubewire.components.kernel.features import VIRTUAL_TIME
from kubewire.scenarios.engine.file.faults import requires
from kubewire.scenarios.engine.file.spec import LabSpec

#: Seconds. kubectl and upstream's e2e framework wait longer, but a lab is a single machine.
DEFAULT_WITHIN = 10.0


@dataclass(frozen=True)
class Timeouts:
    """Limits in seconds. within: for an expectation to hold. ready: for fixtures to be ready. case:
    for a whole case."""

    within: float = DEFAULT_WITHIN
    ready: float = 60.0
    case: float = 300.0


@dataclass(frozen=True)
class Expectation:
    """An expectation.

    sources: the places in `from`, as in the file.
    family: IPv4 or IPv6, to use addresses of this family; "" for the lab's primary family.
    within: seconds in which it must hold. consistently: seconds for which it must then stay so.
    negated: the opposite must hold. must_fail: the variant lists it in `fails`, and it must fail.
    where: "FILE:LINE".
    """

    verb: str
    args: Mapping[str, Any]
    sources: tuple[str, ...] = ()
    family: str = ""
    within: float = DEFAULT_WITHIN
    consistently: float = 0.0
    negated: bool = False
    must_fail: bool = False
    name: str = ""
    id: str = ""
    explain: str = ""
    where: str = ""


@dataclass(frozen=True)
class Step:
    """One action with its arguments, or several expectations. where: "FILE:LINE"."""

    action: str
    args: Any
    name: str = ""
    explain: str = ""
    expectations: tuple[Expectation, ...] = ()
    where: str = ""


@dataclass(frozen=True)
class Variant:
    """One variant of a scenario. name: such as broken, fixed or control; "" if the scenario has no
    variants."""

    name: str
    title: str
    explain: str
    lab: LabSpec
    objects: tuple[Mapping[str, Any], ...]
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Scenario:
    """The parts of a scenario file that all its cases share."""

    name: str
    title: str
    description: str
    topic: str
    tags: tuple[str, ...]
    requires: tuple[str, ...]
    clock: Literal["real", "virtual"]
    isolated: bool
    timeouts: Timeouts
    file: Path
    digest: str


@dataclass(frozen=True)
class Case:
    """The unit that runs and has a result: a scenario, one of its variants, one cell of its
    matrix."""

    scenario: Scenario
    variant: Variant
    lab: LabSpec
    cell: tuple[tuple[str, str], ...] = field(default=())

    @property
    def id(self) -> str:
        """The id: "name", "name[broken]" or "name[fixed,cni.backend=host-gw]"."""
        parts = [self.variant.name] if self.variant.name else []
        parts += [f"{axis}={value}" for axis, value in self.cell]
        return f"{self.scenario.name}[{','.join(parts)}]" if parts else self.scenario.name

    @property
    def requires(self) -> tuple[str, ...]:
        """The kernel features that the case needs: those in the file, those of its lab and its link
        steps, and virtual time."""
        faults = [requires(step.args) for step in self.variant.steps if step.action == "link"]
        clock = [VIRTUAL_TIME] if self.scenario.clock == "virtual" else []
        needed = (
            *self.scenario.requires,
            *self.lab.topology.requires,
            *self.lab.network.requires,
            *self.lab.cni.requires,
            *self.lab.policy_choice.backend.requires,
            *self.lab.kubeProxy.requires,
            *faults,
            *clock,
        )
        return tuple(dict.fromkeys(name for name in needed if name))

    @property
    def fingerprint(self) -> str:
        """A text that changes with the scenario file, the files that it names, and the lab. An old
        result is valid only for the same fingerprint."""
        contents = [*self.variant.objects, *(step.args for step in self.variant.steps)]
        digest = hashlib.sha256(json.dumps(contents, default=str).encode()).hexdigest()[:16]
        return f"{self.scenario.digest}:{digest}:{self.lab.as_dict()}"
