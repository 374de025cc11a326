"""Compiler and evaluator against the truth tables."""

from __future__ import annotations

import itertools

import pytest

from kubewire.components.policy.compiler.compiler import Compiler
from kubewire.components.policy.evaluator import Evaluator, Flow
from tests.components.policy.matrix import PODS, PORTS, Case, Step, case
from tests.components.policy.truth import CASES, take, world

ADDRESSES = {
    "IPv4": {pod: f"10.244.{index % 3 + 1}.{index + 2}" for index, pod in enumerate(PODS)},
    "IPv6": {pod: f"fd00:10:244:{index % 3 + 1}::{index + 2:x}" for index, pod in enumerate(PODS)},
}


def cluster(addresses: dict[str, str]) -> Compiler:
    compiler = Compiler()
    for obj in world(addresses):
        compiler.apply(obj)
    return compiler


def differences(evaluator: Evaluator, step: Step, addresses: dict[str, str]) -> list[str]:
    found = []
    for source, destination in itertools.permutations(PODS, 2):
        for port, protocol in PORTS:
            flow = Flow(addresses[source], addresses[destination], protocol, port)
            verdict = evaluator.verdict(flow)
            if verdict.allowed != step.allowed(source, destination, port, protocol):
                found.append(f"{source} -> {destination} {port}/{protocol}: {verdict}")
    return found


@pytest.mark.parametrize("family", ADDRESSES)
@pytest.mark.parametrize("case", [pytest.param(one, id=one.id) for one in CASES])
def test_the_evaluator_says_what_the_table_says(case: Case, family: str) -> None:
    addresses = ADDRESSES[family]
    compiler = cluster(addresses)
    evaluator = Evaluator(compiler.state)
    for number, step in enumerate(case.steps):
        take(compiler, step, addresses)
        evaluator.update(compiler.state, compiler.changes())
        assert not compiler.problems
        assert not differences(evaluator, step, addresses), f"step {number}"


def test_there_are_enough_cases_and_their_names_differ() -> None:
    """Upstream's suite has 48."""
    plain = [one for one in CASES if not one.requires]
    assert len(plain) >= 48
    assert len({one.id for one in CASES}) == len(CASES)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("x/*  ... ... ...", id="leaves out sources"),
        pytest.param("*  ... .. ...", id="has too few destinations"),
        pytest.param("80/TCP\n*  ... ... ...", id="leaves out ports"),
    ],
)
def test_a_table_is_refused_that(text: str) -> None:
    with pytest.raises(ValueError, match=r"no line|characters|no matrix"):
        case("wrong", text).steps[0].allowed("y/a", "z/b", 81, "UDP")


def test_a_pod_reaches_itself_whatever_a_table_says() -> None:
    step = case("all denied", "*  XXX XXX XXX").steps[0]
    assert step.allowed("x/a", "x/a", 80, "TCP")
    assert not step.allowed("x/a", "x/b", 80, "TCP")
