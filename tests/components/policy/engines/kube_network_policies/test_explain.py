"""What hands a packet to the agent is found among what the renderer writes, for selected pods alone."""

from __future__ import annotations

import pytest

from kubewire.components.policy import registry
from kubewire.components.policy.compiler.compiler import Compiler
from kubewire.components.policy.engines.kube_network_policies.explain import carriers
from kubewire.components.policy.engines.kube_network_policies.render import Options, ruleset, sets
from kubewire.components.policy.evaluator import Decision
from kubewire.components.policy.model import Direction, ObjectKey, State
from tests.components.policy import objects

UNDECIDED = Decision(True, None, "", "")


def state(address: str) -> State:
    compiler = Compiler()
    compiler.apply(objects.pod("db", "shop", addresses=[address]))
    compiler.apply(objects.pod("other", addresses=["10.244.1.9"]))
    compiler.apply(objects.network_policy("db", "shop"))
    return compiler.state


@pytest.mark.parametrize(("address", "version"), [("10.244.1.2", 4), ("fd00::2", 6)])
@pytest.mark.parametrize(("direction", "side"), [(Direction.INGRESS, "dst"), (Direction.EGRESS, "src")])
def test_a_selected_pod_is_an_element_and_its_packets_are_queued(
    address: str, version: int, direction: Direction, side: str
) -> None:
    known, options = state(address), Options("worker-1")
    element, rule = carriers(known, known.endpoints[ObjectKey("Pod", "shop", "db")], direction, UNDECIDED)
    (addresses,) = sets(known, options, version)
    members = "\n".join(f"add {addresses.name} {one}" for one in addresses.members)
    assert element.command == ("ipset", "save", addresses.name)
    assert element.lines(members) == [f"add {addresses.name} {address}"]
    chains = ruleset(options, version).chains
    rules = "\n".join(f"[1:60] -A {chain.name} {one}" for chain in chains for one in chain.rules)
    (line,) = rule.lines(rules)
    assert f" {side} -j NFQUEUE" in line and rule.command[0] == ("iptables-save" if version == 4 else "ip6tables-save")


def test_packets_of_a_pod_without_policies_are_not_queued() -> None:
    known = state("10.244.1.2")
    other = known.endpoints[ObjectKey("Pod", "default", "other")]
    assert carriers(known, other, Direction.INGRESS, UNDECIDED) == ()


def test_the_registry_has_the_engines_function() -> None:
    assert registry.carriers_of("kube-network-policies") is carriers
