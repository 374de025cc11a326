"""What this machine's kernel cannot run of the catalogue passes in a virtual machine.

A machine and its lab take a minute or more of a core, so the default suite runs one lab, the smallest, for each feature
that the kernel lacks. KUBEWIRE_VM_CASES=all runs every lab, and so does `kubewire run --vm auto`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kubewire.lab.commands.virtual import TESTED
from kubewire.lab.commands.vm_runs import VirtualMachines
from kubewire.lab.handle import LabStarter
from kubewire.lab.needs.doctor import missing_feature
from kubewire.scenarios.engine.events.options import RunOptions
from kubewire.scenarios.engine.file.model import Case
from kubewire.scenarios.engine.file.spec import LabSpec
from kubewire.scenarios.engine.loader import load_all
from kubewire.scenarios.engine.run.runner import Run
from kubewire.vm import build
from kubewire.vm.kernels import named
from tests.vm.conftest import none_at_all

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1500)]

CATALOGUE = Path(__file__).parents[2] / "scenarios/catalogue"


def missing(cases: tuple[Case, ...]) -> set[str]:
    """The features that this kernel lacks for the cases. A feature is another one where a kube-proxy uses it."""
    features = {name for case in cases for name in case.requires if missing_feature(name)}
    by_kube_proxy = features.intersection(cases[0].lab.kubeProxy.requires) if cases[0].lab.kubernetes else ()
    return features | {f"{name} of kube-proxy" for name in by_kube_proxy}


def left_out() -> dict[str, str]:
    """The labs that the default suite does not run, by their first case: which smaller one tries the same features."""
    tried: dict[str, str] = {}
    others = {}
    for cases in sorted(portions(), key=size):
        features = missing(cases)
        if features <= tried.keys():
            others[cases[0].id] = f"{' and '.join(sorted({tried[name] for name in features}))} tries the same features"
        for name in features:
            tried.setdefault(name, cases[0].id)
    return others


def size(cases: tuple[Case, ...]) -> tuple[int, int]:
    """What a lab and its cases cost, roughly: the components of each node for each IP family, and each case. Of equals,
    the one with fewer nodes is smaller."""
    lab = cases[0].lab
    families = len(lab.network.ip_families.split("/"))
    return len(cases) + (families * len(lab.nodes) if lab.kubernetes else 0), len(lab.nodes)


def portions() -> list[tuple[Case, ...]]:
    """What this kernel cannot run, by lab, so that the workers share it."""
    cases = [case for case in load_all([CATALOGUE]) if any(missing_feature(name) for name in case.requires)]
    by_lab: dict[tuple[LabSpec, str], list[Case]] = {}
    for case in cases:
        by_lab.setdefault((case.lab, case.scenario.clock), []).append(case)
    return [tuple(members) for members in by_lab.values()]


@pytest.mark.parametrize("cases", portions(), ids=lambda cases: cases[0].id)
def test_what_this_kernel_cannot_run_passes_in_a_virtual_machine(
    cases: tuple[Case, ...], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """A machine for each lab. What no built kernel can is told in the closing summary.

    What only QEMU can is not run here: it emulates every instruction, and a case's time-outs would measure the load.
    """
    if not any(build.find(named(name)) for name in TESTED):
        pytest.skip(none_at_all())
    if os.environ.get("KUBEWIRE_VM_CASES") != "all" and (why := left_out().get(cases[0].id)):
        pytest.skip(f"{why}; KUBEWIRE_VM_CASES=all runs this lab, too")
    machines = VirtualMachines()
    places = {case.id: machines.place(case) for case in cases}
    if slow := sorted({place for place in places.values() if place and place.partition(",")[0] not in TESTED}):
        pytest.skip(f"of the kernels built here only {slow[0]} can; {build.missing(named(TESTED[0])) or TESTED[0]}")
    options = RunOptions(tmp_path, missing=missing_feature, elsewhere=machines, delegate=True)
    result = Run(cases, LabStarter(), options, []).run()
    outcomes = {one.case.id: (one.status, one.problem) for one in result.cases}
    for case in cases:
        where = f"{case.id}: in the virtual machine {places[case.id]}"
        record_property("told", where if places[case.id] else f"not run: {case.id}: {outcomes[case.id][1]}")
    assert {name: outcome for name, outcome in outcomes.items() if places[name] and outcome[0] != "passed"} == {}
    assert [name for name, outcome in outcomes.items() if not places[name] and outcome[0] != "skipped"] == []
