"""Cases that this machine cannot run: skipped with the command that can, or handed over, and then part of the report."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event as Flag
from typing import Any, cast

import pytest

from kubewire.scenarios.engine.events.options import RunOptions
from kubewire.scenarios.engine.events.results import CaseFinished, CaseResult, CaseStarted, Event
from kubewire.scenarios.engine.file.document import SpecError
from kubewire.scenarios.engine.file.model import Case
from kubewire.scenarios.engine.loader import load, load_all
from kubewire.scenarios.engine.run.runner import Run, run
from kubewire.scenarios.engine.run.steps import perform
from kubewire.scenarios.engine.run.steps.stage import Stage

_STEPS = "steps:\n  - expect: {from: worker-1, ping: worker-2}\n"


class Machines:
    """An Elsewhere whose one place says what it is told to say."""

    def __init__(self, results: dict[str, str], error: Exception | None = None) -> None:
        self.results, self.error = results, error
        self.asked: list[tuple[str, list[str]]] = []

    def place(self, case: Case) -> str:
        return "uml" if case.id in self.results else ""

    def advice(self, case: Case) -> str:
        return f"kubewire vm run -- run {case.id}"

    def run(
        self, place: str, cases: Sequence[Case], results: Path, tell: Callable[[Event], None], stopping: Flag
    ) -> None:
        self.asked.append((place, [case.id for case in cases]))
        for case in cases:
            if status := self.results[case.id]:
                tell(CaseStarted(case, "lab", 1, 1))
                tell(CaseFinished(CaseResult(case, status, 1.0)))  # type: ignore[arg-type]
        if self.error:
            raise self.error


def missing(feature: str) -> str:
    return f"this kernel has no {feature}"


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    made = []
    for name in ("a", "b"):
        made.append(tmp_path / f"{name}.scenario.yaml")
        made[-1].write_text(f"name: {name}\ntitle: t\nrequires: [ip_vs]\n{_STEPS}")
    return made


def no_lab(*_: object) -> None:
    raise AssertionError("no lab is needed here")


def outcome(files: list[Path], tmp_path: Path, machines: Machines, **options: object) -> dict[str, tuple[str, str]]:
    chosen = RunOptions(tmp_path / "results", missing=missing, elsewhere=machines, **options)  # type: ignore[arg-type]
    result = Run(load_all(files), no_lab, chosen, []).run()  # type: ignore[arg-type]
    return {one.case.id: (one.status, one.reason) for one in result.cases}


def test_without_leave_to_hand_over_the_reason_is_followed_by_the_command(files: list[Path], tmp_path: Path) -> None:
    machines = Machines({"a": "passed", "b": "passed"})
    said = (
        "this machine cannot run it: this kernel has no ip_vs; to run it in a virtual machine: kubewire vm run -- run a"
    )
    assert outcome(files, tmp_path, machines)["a"] == ("skipped", said)
    assert machines.asked == []


def test_what_ran_elsewhere_is_in_the_results_like_the_rest(files: list[Path], tmp_path: Path) -> None:
    machines = Machines({"a": "passed", "b": "failed"})
    found = outcome(files, tmp_path, machines, delegate=True)
    assert {name: status for name, (status, _) in found.items()} == {"a": "passed", "b": "failed"}
    assert machines.asked == [("uml", ["a", "b"])]


def test_one_report_has_all_and_the_exit_code_counts_all(files: list[Path], tmp_path: Path) -> None:
    options = RunOptions(
        tmp_path / "results",
        missing=missing,
        elsewhere=Machines({"a": "passed", "b": "failed"}),
        delegate=True,
        quiet=True,
    )
    assert run(files, no_lab, options) == 1  # type: ignore[arg-type]
    cases = json.loads((tmp_path / "results/results.json").read_text())["cases"]
    assert {case["id"]: case["status"] for case in cases} == {"a": "passed", "b": "failed"}


def test_a_case_of_which_nothing_came_back_did_not_pass(files: list[Path], tmp_path: Path) -> None:
    found = outcome(files, tmp_path, Machines({"a": "passed", "b": ""}), delegate=True)
    assert found == {"a": ("passed", ""), "b": ("error", "uml: it ended without a result")}


def test_when_the_machine_breaks_the_rest_says_why(files: list[Path], tmp_path: Path) -> None:
    found = outcome(files, tmp_path, Machines({"a": "passed", "b": ""}, RuntimeError("it panicked")), delegate=True)
    assert found["b"] == ("error", "uml: it panicked")


def test_what_no_place_can_run_is_skipped(files: list[Path], tmp_path: Path) -> None:
    assert outcome(files, tmp_path, Machines({"a": "passed"}), delegate=True)["b"][0] == "skipped"


def test_virtual_time_is_something_that_a_machine_may_lack(tmp_path: Path) -> None:
    file = tmp_path / "x.scenario.yaml"
    file.write_text(f"name: x\ntitle: t\nclock: virtual\nrequires: [conntrack]\n{_STEPS}")
    assert load(file)[0].requires == ("conntrack", "virtual time")


def test_a_lab_in_ipvs_mode_needs_what_the_mode_does_without_saying_so(tmp_path: Path) -> None:
    file = tmp_path / "x.scenario.yaml"
    file.write_text(f"name: x\ntitle: t\nlab: {{kubeProxy: {{mode: ipvs}}}}\n{_STEPS}")
    assert load(file)[0].requires == ("ip_vs", "dummy", "ipset")


def test_hours_of_virtual_time_never_pass_for_real(tmp_path: Path) -> None:
    file = tmp_path / "x.scenario.yaml"
    file.write_text("name: x\ntitle: t\nclock: virtual\nlab: {kubernetes: false}\nsteps:\n  - elapse: 23h\n")
    (case,) = load(file)
    result = perform(Stage(cast(Any, None), case, []), case.variant.steps[0])
    assert (result.status, result.message.split(";")[0]) == (
        "failed",
        "23 h 0 min would really pass here, but the scenario needs virtual time",
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fixtures: {pods: {a: {node: worker-1}}}\n" + _STEPS, "no API server for fixtures or manifests"),
        ("steps:\n  - scale: {deployment/x: 2}\n", "scale needs an API"),
        ("steps:\n  - expect: {events: {reason: Killing}}\n", "events needs an API"),
    ],
)
def test_a_lab_without_kubernetes_refuses_what_needs_its_api(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "x.scenario.yaml"
    file.write_text(f"name: x\ntitle: t\nlab: {{kubernetes: false}}\n{text}")
    with pytest.raises(SpecError, match=said):
        load(file)
