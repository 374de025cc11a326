"""Every case of the catalogue has a mutation that fits it, or is in the list of those that have none yet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kubewire.scenarios.engine.loader import load
from tests.mutants import MUTATIONS, Mutation, WrongMutation, cases, choose, judge, mutate, read, table

CASES = cases()
WRITTEN, NONE_YET = read()
FAULT = Mutation("x", "a rule is gone", red="The web answers: http: timeout")


def test_every_case_has_a_mutation_or_is_listed_as_having_none_yet() -> None:
    assert set(CASES) - set(WRITTEN) - set(NONE_YET) == set()


def test_the_list_of_cases_without_a_mutation_only_gets_shorter() -> None:
    assert set(NONE_YET) & set(WRITTEN) == set()
    assert len(set(NONE_YET)) == len(NONE_YET) <= MOST_WITHOUT


#: Lower it with each mutation that is written.
MOST_WITHOUT = 10


def test_no_case_is_named_that_is_gone() -> None:
    assert {*WRITTEN, *NONE_YET} - set(CASES) == set()


@pytest.mark.parametrize("name", WRITTEN)
def test_a_mutant_is_a_scenario_of_one_case_with_a_lab_to_itself(name: str, tmp_path: Path) -> None:
    file = tmp_path / "mutant-1.scenario.yaml"
    file.write_text(json.dumps(mutate(CASES[name], WRITTEN[name], "mutant-1")))
    (case,) = load(file)
    assert (case.variant.name, case.cell) == (CASES[name].variant.name, CASES[name].cell)
    assert case.scenario.isolated
    assert case != CASES[name]


def test_a_mutant_differs_from_its_case_in_the_fault_alone(tmp_path: Path) -> None:
    file = tmp_path / "a.scenario.yaml"
    file.write_text(
        """
name: a
title: t
matrix: {dns.replicas: [1, 2]}
steps: [{name: one, note: x}, {name: two, expect: {from: client, ping: 10.0.0.1}}]
variants: {broken: {before: [{note: b}]}, fixed: {}}
"""
    )
    case = next(one for one in load(file) if one.variant.name == "broken")
    mutant = mutate(case, Mutation("a[broken]", "c", "r", steps=[{"note": "fault"}]), "m")
    assert [step.get("note") for step in mutant["steps"]] == ["b", "x", "fault", None]
    assert (mutant["name"], mutant["variants"], mutant["matrix"]) == ("m", {"broken": {}}, {"dns.replicas": [1]})
    assert "fault" not in file.read_text()


def test_a_mutation_before_a_step_that_is_not_there_is_refused() -> None:
    name = next(iter(WRITTEN))
    with pytest.raises(WrongMutation, match="no step 'nowhere'"):
        mutate(CASES[name], Mutation(name, "c", "r", before="nowhere", steps=[{"note": "x"}]), "m")


def result(status: str, message: str = "timeout", name: str = "The web answers") -> dict[str, Any]:
    wrong = {"name": "http", "status": status, "message": message}
    steps = [{"name": name, "status": status, "message": "", "expectations": [wrong]}]
    return {"status": status, "seconds": 2.0, "reason": "", "steps": steps}


@pytest.mark.parametrize(
    ("seen", "found", "said"),
    [
        pytest.param(result("failed"), True, "failed: The web answers: http: timeout", id="fails where it should"),
        pytest.param(result("failed", "refused"), False, "http: refused", id="fails for another reason"),
        pytest.param(result("failed", name="Before"), False, "failed: Before", id="fails elsewhere"),
        pytest.param(result("error"), False, "error: The web answers", id="could not be looked at"),
        pytest.param(result("passed"), False, "passed", id="does not notice"),
        pytest.param(None, False, "did not run", id="did not run"),
    ],
)
def test_a_mutant_is_found_only_when_its_case_fails_where_the_mutation_says(
    seen: dict[str, Any] | None, found: bool, said: str
) -> None:
    outcome = judge(FAULT, seen)
    assert (outcome.found, said in outcome.said) == (found, True)


def test_mutants_that_were_not_found_come_first_in_the_table() -> None:
    rows = table([judge(FAULT, result("failed")), judge(FAULT, None)]).splitlines()[2:]
    assert ["**no**" in row for row in rows] == [True, False]


def test_mutations_are_chosen_by_subject_scenario_or_case() -> None:
    assert {case.scenario.topic for case, _ in choose(["basics"])} == {"basics"}
    assert [mutation.case for _, mutation in choose(["hairpin[broken]"])] == ["hairpin[broken]"]
    assert len(choose(["hairpin"])) == 3
    assert len(choose([])) == len(WRITTEN)


def test_every_mutation_says_where_its_case_fails() -> None:
    assert [name for name, one in WRITTEN.items() if not (one.change and one.red)] == []
    assert MUTATIONS.is_file()
