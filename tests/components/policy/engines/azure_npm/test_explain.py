"""What carries a decision is found among what the renderer writes, and missed where it is missing."""

from __future__ import annotations

import pytest

from kubewire.components.policy import registry
from kubewire.components.policy.compiler.compiler import Compiler
from kubewire.components.policy.engines.azure_npm.explain import carriers
from kubewire.components.policy.engines.azure_npm.render import render
from kubewire.components.policy.evaluator import Evaluator, Flow
from kubewire.components.policy.model import Direction, ObjectKey, State
from tests.components.policy import objects

DB, WEB, SPY = "10.240.0.4", "10.240.0.5", "10.240.0.6"
NAMES = {DB: "db", WEB: "web", SPY: "spy"}


@pytest.fixture
def state() -> State:
    compiler = Compiler()
    for address, name in NAMES.items():
        compiler.apply(objects.pod(name, "shop", addresses=[address], labels={"app": name}))
    web, db, spy = ({"podSelector": {"matchLabels": {"app": name}}} for name in ("web", "db", "spy"))
    compiler.apply(objects.network_policy("db", "shop", **db, ingress=[{"from": [web], "ports": [{"port": 80}]}]))
    compiler.apply(objects.network_policy("spy", "shop", **spy, egress=[{}], policyTypes=["Egress"]))
    return compiler.state


@pytest.mark.parametrize(
    ("source", "destination", "direction", "texts"),
    [
        (WEB, DB, Direction.INGRESS, ["--dport 80"]),
        (SPY, DB, Direction.INGRESS, ["DROP-ALL"]),
        (SPY, DB, Direction.EGRESS, ["ALLOW-ALL"]),
        (WEB, DB, Direction.EGRESS, []),
    ],
    ids=["rule", "denied", "all allowed", "open"],
)
def test_the_lines_that_carry_a_decision(
    state: State, source: str, destination: str, direction: Direction, texts: list[str]
) -> None:
    verdict = Evaluator(state).verdict(Flow(source, destination, "TCP", 80))
    ingress = direction is Direction.INGRESS
    pod = state.endpoints[ObjectKey("Pod", "shop", NAMES[destination if ingress else source])]
    found = carriers(state, pod, direction, verdict.ingress if ingress else verdict.egress)
    chains = render(state).ruleset.chains
    printed = "\n".join(f"[1:60] -A {chain.name} {rule}" for chain in chains for rule in chain.rules)
    lines = [line for one in found for line in one.lines(printed)]
    assert len(lines) == len(texts)
    assert all(text in line for text, line in zip(texts, lines, strict=True))
    assert not any(one.lines(":AZURE-NPM - [0:0]") for one in found)


def test_the_registry_has_the_engines_function() -> None:
    assert registry.carriers_of("azure-npm") is carriers
