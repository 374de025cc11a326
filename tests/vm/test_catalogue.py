"""Every scenario of the catalogue that this machine's kernel cannot run passes in a virtual machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.doctor import missing_feature
from lab.handle import LabStarter
from lab.vm_runs import VirtualMachines
from scenarios.engine.loader import load_all
from scenarios.engine.options import RunOptions
from scenarios.engine.runner import Run
from vm import build
from vm.kernels import KERNELS

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1500)]

CATALOGUE = Path(__file__).parents[2] / "scenarios/catalogue"


def test_what_this_kernel_cannot_run_passes_in_a_virtual_machine(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """One machine for all of it, one more for virtual time. What no built kernel can is told in the closing summary."""
    if not any(build.find(kernel) for kernel in KERNELS):
        pytest.skip("no virtual machine's kernel is built: kubewire vm build")
    cases = [case for case in load_all([CATALOGUE]) if any(missing_feature(name) for name in case.requires)]
    machines = VirtualMachines()
    places = {case.id: machines.place(case) for case in cases}
    options = RunOptions(tmp_path, missing=missing_feature, elsewhere=machines, delegate=True)
    result = Run(cases, LabStarter(), options, []).run()
    outcomes = {one.case.id: (one.status, one.problem) for one in result.cases}
    for place, count in Counter(place for place in places.values() if place).items():
        record_property("told", f"{count} scenarios in the virtual machine {place}")
    for case in cases:
        if not places[case.id]:
            record_property("told", f"not run: {case.id}: {outcomes[case.id][1]}")
    assert {name: outcome for name, outcome in outcomes.items() if places[name] and outcome[0] != "passed"} == {}
    assert [name for name, outcome in outcomes.items() if not places[name] and outcome[0] != "skipped"] == []
