"""What carries a decision is found among what the renderer writes, and missed where it is missing."""

from __future__ import annotations

import pytest

from kubewire.components.policy import registry
from kubewire.components.policy.compiler.compiler import Compiler
from kubewire.components.policy.engines.weave_npc.explain import carriers
from kubewire.components.policy.engines.weave_npc.render import Options, render
from kubewire.components.policy.evaluator import Evaluator, Flow
from kubewire.components.policy.model import Direction, ObjectKey, State
from tests.components.policy import objects

DB, WEB, SPY = "10.32.0.1", "10.32.0.2", "10.32.0.3"


@pytest.fixture
def state() -> State:
    compiler = Compiler()
    for name, address in (("db", DB), ("web", WEB), ("spy", SPY)):
        compiler.apply(objects.pod(name, "shop", addresses=[address], labels={"app": name}))
    web = {"podSelector": {"matchLabels": {"app": "web"}}}
    db = {"podSelector": {"matchLabels": {"app": "db"}}}
    ports = [{"port": 80}, {"port": 81}]
    compiler.apply(objects.network_policy("db", "shop", **db, ingress=[{"from": [web], "ports": ports}]))
    compiler.apply(objects.network_policy("spy", "shop", podSelector={"matchLabels": {"app": "spy"}}, egress=[{}]))
    compiler.apply(objects.network_policy("web", "shop", **web, egress=[{"to": [db]}], policyTypes=["Egress"]))
    return compiler.state


def printed(state: State, command: tuple[str, ...]) -> str:
    """What the command would print on a node that has what the renderer makes."""
    rendered = render(state, Options())
    if command[0] == "ipset":
        (found,) = (one for one in rendered.sets if one.name == command[2])
        return "\n".join(f"add {found.name} {member}" for member in found.members)
    own = [f"[1:60] -A {chain.name} {rule}" for chain in rendered.ruleset.chains for rule in chain.rules]
    forward = ["[2:120] -A FORWARD -o weave -j WEAVE-NPC", "[1:60] -A FORWARD -o weave -j DROP"]
    return "\n".join([*own, *forward])


@pytest.mark.parametrize(
    ("source", "destination", "direction", "texts"),
    [
        (WEB, DB, Direction.INGRESS, ["--dport 80", "--dport 81"]),
        (WEB, DB, Direction.EGRESS, ["-j WEAVE-NPC-EGRESS-ACCEPT", "-j RETURN"]),
        (SPY, DB, Direction.INGRESS, ["-A FORWARD -o weave -j DROP"]),
        (WEB, SPY, Direction.EGRESS, ["-j NFLOG", "-j DROP"]),
        (DB, WEB, Direction.EGRESS, [f"{DB} comment"]),
        (DB, WEB, Direction.INGRESS, [f"{WEB} comment"]),
        (DB, DB, Direction.INGRESS, []),
    ],
    ids=["rule", "egress rule", "denied", "denied egress", "open", "open in one direction", "itself"],
)
def test_the_lines_that_carry_a_decision(
    state: State, source: str, destination: str, direction: Direction, texts: list[str]
) -> None:
    verdict = Evaluator(state).verdict(Flow(source, destination, "TCP", 80))
    ingress = direction is Direction.INGRESS
    decision = verdict.ingress if ingress else verdict.egress
    name = {DB: "db", WEB: "web", SPY: "spy"}[destination if ingress else source]
    pod = state.endpoints[ObjectKey("Pod", "shop", name)]
    found = carriers(state, pod, direction, decision)
    lines = [line for one in found for line in one.lines(printed(state, one.command))]
    assert len(lines) == len(texts)
    assert all(text in line for text, line in zip(texts, lines, strict=True))
    assert not any(one.lines("*filter\n:WEAVE-NPC - [0:0]\nCOMMIT\n") for one in found)


def test_the_registry_has_the_engines_function() -> None:
    assert registry.carriers_of("weave-npc") is carriers
    assert registry.carriers_of("none") is None
