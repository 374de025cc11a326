"""The catalogue: every file can be read and is described, the README's example runs, and all of it passes."""

import re
from pathlib import Path
from typing import Any

import pytest

from kubewire.lab.handle import LabStarter
from kubewire.lab.needs.doctor import missing_feature
from kubewire.scenarios.engine.cli import files_of
from kubewire.scenarios.engine.events.options import RunOptions
from kubewire.scenarios.engine.file.model import Case
from kubewire.scenarios.engine.loader import load_all
from kubewire.scenarios.engine.run.groups import group
from kubewire.scenarios.engine.run.runner import run
from tests.scenarios.netlab import NetLabs
from tests.scratch import isolated

SCENARIOS = Path(__file__).parents[2] / "scenarios"
CATALOGUE = SCENARIOS / "catalogue"
CASES = load_all([CATALOGUE])
#: Cases that one lab runs in one test: few enough for the workers to share the catalogue evenly.
PORTION = 10


def portions() -> list[tuple[Case, ...]]:
    """The cases that this machine can run, by lab."""
    here = [case for case in CASES if not any(missing_feature(name) for name in case.requires)]
    groups = [one.cases for one in group(here)]
    return [cases[start : start + PORTION] for cases in groups for start in range(0, len(cases), PORTION)]


@pytest.mark.parametrize("name", sorted({case.scenario.name for case in CASES}))
def test_a_scenario_says_what_it_is_about(name):
    scenario = next(case.scenario for case in CASES if case.scenario.name == name)
    assert len(scenario.description) > 80
    assert scenario.tags
    assert f"**{name}**" in (scenario.file.parent / "README.md").read_text()


@pytest.mark.parametrize("name", sorted({case.scenario.name for case in CASES}))
def test_a_scenario_is_found_by_the_name_that_the_list_shows(name):
    (file,) = files_of([name])
    assert next(case.scenario.name for case in load_all([file])) == name


def test_the_schema_that_a_scenario_names_for_editors_is_there():
    for file in CATALOGUE.rglob("*.scenario.yaml"):
        named = re.match(r"# yaml-language-server: \$schema=(\S+)\n", file.read_text())
        assert named and (file.parent / named[1]).is_file(), file


@pytest.mark.parametrize("text", ["/no/such.scenario.yaml", "no*such", "**", "hair[p]in"])
def test_what_is_not_there_is_taken_as_a_path_and_never_as_a_pattern(text):
    assert files_of([text]) == [Path(text)]


def test_pitfalls_come_as_broken_fixed_and_control():
    variants: dict[str, set[str]] = {}
    for case in CASES:
        variants.setdefault(case.scenario.name, set()).add(case.variant.name)
    assert all(names in ({""}, {"broken", "fixed", "control"}) for names in variants.values())


def test_scenarios_share_one_lab_unless_the_lab_is_what_they_are_about():
    labs: dict[str, set[Any]] = {}
    for case in CASES:
        usual = case.lab.cni.plugin == "flannel" and case.lab.topology.shape == "one-segment"
        usual = usual and not case.lab.policy.engine
        if not case.cell and case.lab.kubernetes and usual and not case.scenario.isolated:
            labs.setdefault(case.scenario.name, set()).add(case.lab)
    assert len({lab for of_one in labs.values() if len(of_one) == 1 for lab in of_one}) == 1


@pytest.mark.packet
def test_the_example_of_the_readme_runs():
    (example,) = re.findall(r"```yaml\n(name: .*?)```", (SCENARIOS / "engine" / "README.md").read_text(), re.S)

    def body():
        file = Path("/tmp/two-pods.scenario.yaml")
        file.write_text(example)
        return run([file], NetLabs(), RunOptions(results=Path("/tmp/results"), quiet=True))

    assert isolated(body) == 0


@pytest.mark.lab
@pytest.mark.parametrize("cases", portions(), ids=lambda cases: cases[0].id)
def test_the_catalogue_passes(cases, tmp_path):
    """What this kernel cannot run passes in a virtual machine: tests/vm/test_catalogue.py."""
    names = tuple(case.id for case in cases)
    assert run([CATALOGUE], LabStarter(), RunOptions(results=tmp_path, quiet=True, only=names)) == 0
