"""What a scenario file says, read and merged: frozen, ready to run.

Values inside verbs and steps are still as written: ${references} are filled in when a step runs, and only then
do they become the verbs' own dataclasses (kubewire.scenarios.engine.verbs).
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

#: seconds; kubectl and the e2e framework wait longer, but a lab is one machine.
DEFAULT_WITHIN = 10.0


@dataclass(frozen=True)
class Timeouts:
    """Seconds. within: of an expectation; ready: until the fixtures are; case: a whole case."""

    within: float = DEFAULT_WITHIN
    ready: float = 60.0
    case: float = 300.0


@dataclass(frozen=True)
class Expectation:
    """verb and its arguments; sources: where to look from, as written; negated: must not hold.

    family: IPv4 or IPv6, whose addresses are meant; "": the lab's primary one.
    consistently: seconds for which it must stay as expected once it is. must_fail: the variant says that this
    shared expectation fails here, and it is checked that it does.
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
    """One action with its arguments, or expectations. where: "FILE:LINE"."""

    action: str
    args: Any
    name: str = ""
    explain: str = ""
    expectations: tuple[Expectation, ...] = ()
    where: str = ""


@dataclass(frozen=True)
class Variant:
    """name: "" for a plain scenario, else broken, fixed or control."""

    name: str
    title: str
    explain: str
    lab: LabSpec
    objects: tuple[Mapping[str, Any], ...]
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Scenario:
    """A scenario file. variants already hold what they share."""

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
    """One run: a scenario, one of its variants, one cell of its matrix."""

    scenario: Scenario
    variant: Variant
    lab: LabSpec
    cell: tuple[tuple[str, str], ...] = field(default=())

    @property
    def id(self) -> str:
        """ "name", "name[broken]", "name[fixed,cni.backend=host-gw]"."""
        parts = [self.variant.name] if self.variant.name else []
        parts += [f"{axis}={value}" for axis, value in self.cell]
        return f"{self.scenario.name}[{','.join(parts)}]" if parts else self.scenario.name

    @property
    def requires(self) -> tuple[str, ...]:
        """What the kernel must have: what the file says, its lab and its link steps need, and virtual time."""
        faults = [requires(step.args) for step in self.variant.steps if step.action == "link"]
        clock = [VIRTUAL_TIME] if self.scenario.clock == "virtual" else []
        needed = (
            *self.scenario.requires,
            *self.lab.topology.requires,
            *self.lab.network.requires,
            *self.lab.cni.requires,
            *self.lab.kubeProxy.requires,
            *faults,
            *clock,
        )
        return tuple(dict.fromkeys(name for name in needed if name))

    @property
    def fingerprint(self) -> str:
        """Changes when the file, a file of manifests that it names, or the lab does: an old result then says
        nothing."""
        contents = [*self.variant.objects, *(step.args for step in self.variant.steps)]
        digest = hashlib.sha256(json.dumps(contents, default=str).encode()).hexdigest()[:16]
        return f"{self.scenario.digest}:{digest}:{self.lab.as_dict()}"
