"""NetworkPolicy: the compiled rules themselves, and what is refused. What they mean is in the truth
tables."""

from __future__ import annotations

from typing import Any

import pytest

from kubewire.components.policy.compiler.networkpolicy import translate
from kubewire.components.policy.compiler.translation import InvalidPolicy
from kubewire.components.policy.model import Definition, Direction, Match, NamedPort, PortRange, Rule, Side
from kubewire.components.policy.selectors import Equals
from tests.components.policy.objects import network_policy

PEER = {"podSelector": {"matchLabels": {"app": "a"}}}
DEFINITION = Definition(selector=Equals("app", "a"), namespace="default")


def rules(direction: Direction, **spec: Any) -> tuple[Rule, ...]:
    (policy,) = translate(network_policy("p", **spec)).policies
    return policy.rules(direction)


def sets_of(**spec: Any) -> dict[str, tuple[Definition, NamedPort | None]]:
    return {one.id: (one.definition, one.named_port) for one in translate(network_policy("p", **spec)).sets}


def test_each_peer_is_a_rule_and_knows_its_place() -> None:
    made = rules(Direction.INGRESS, ingress=[{"from": [PEER, {"namespaceSelector": {}}]}, {}])
    assert [str(rule.origin) for rule in made] == [
        "NetworkPolicy default/p, ingress[0].from[0]",
        "NetworkPolicy default/p, ingress[0].from[1]",
        "NetworkPolicy default/p, ingress[1]",
    ]


def test_each_protocol_is_a_rule_with_its_ports_together() -> None:
    ports = [
        {"port": 80},
        {"port": 53, "protocol": "UDP"},
        {"port": 443, "endPort": 445},
        {"port": 9, "protocol": "SCTP"},
    ]
    made = rules(Direction.INGRESS, ingress=[{"ports": ports}])
    assert {rule.match.protocol: rule.match.destination.ports for rule in made} == {
        "TCP": (PortRange(80, 80), PortRange(443, 445)),
        "UDP": (PortRange(53, 53),),
        "SCTP": (PortRange(9, 9),),
    }


def test_a_named_port_of_ingress_is_looked_up_at_every_pod() -> None:
    spec = {"ingress": [{"from": [PEER], "ports": [{"port": "web"}]}]}
    (rule,) = rules(Direction.INGRESS, **spec)
    sets = sets_of(**spec)
    (peers,), (ports,) = rule.match.source.sets, rule.match.destination.port_sets
    assert sets == {peers: (DEFINITION, None), ports: (Definition(), NamedPort("TCP", "web"))}


def test_a_named_port_of_egress_is_looked_up_at_the_peer_which_needs_no_set_of_its_own() -> None:
    spec = {"egress": [{"to": [PEER], "ports": [{"port": "web"}]}]}
    (rule,) = rules(Direction.EGRESS, **spec)
    (ports,) = rule.match.destination.port_sets
    assert sets_of(**spec) == {ports: (DEFINITION, NamedPort("TCP", "web"))}
    assert rule.match.destination.sets == ()


def test_a_number_beside_a_named_port_needs_the_peer_too() -> None:
    (rule,) = rules(Direction.EGRESS, egress=[{"to": [PEER], "ports": [{"port": "web"}, {"port": 80}]}])
    assert len(rule.match.destination.sets) == 1
    assert rule.match.destination.ports == (PortRange(80, 80),)


def test_a_network_is_written_canonically() -> None:
    block = {"ipBlock": {"cidr": "10.1.2.3/8", "except": ["10.2.0.1/16"]}}
    (rule,) = rules(Direction.INGRESS, ingress=[{"from": [block]}])
    assert rule.match == Match(source=Side(nets=("10.0.0.0/8",), not_nets=("10.2.0.0/16",)))


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        pytest.param(
            {"policyTypes": ["Inbound"]}, "spec.policyTypes[0]: 'Inbound' is neither Ingress nor Egress", id="type"
        ),
        pytest.param(
            {"ingress": [{"from": [{}]}]},
            "spec.ingress[0].from[0]: must have podSelector, namespaceSelector or ipBlock",
            id="an empty peer",
        ),
        pytest.param(
            {"ingress": [{"from": [PEER | {"ipBlock": {"cidr": "10.0.0.0/8"}}]}]},
            "spec.ingress[0].from[0]: may not have selectors beside ipBlock",
            id="a selector beside ipBlock",
        ),
        pytest.param(
            {"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["x"]}}]}]},
            "spec.ingress[0].from[0].ipBlock.except[0]: 'x' is not a valid CIDR",
            id="no CIDR",
        ),
        pytest.param(
            {"egress": [{"ports": [{"port": 0}]}]},
            "spec.egress[0].ports[0].port: 0 must be ports between 1 and 65535 in ascending order",
            id="port 0",
        ),
        pytest.param(
            {"egress": [{"ports": [{"port": "web", "endPort": 90}]}]},
            "spec.egress[0].ports[0].endPort: may only be given with a port that is a number",
            id="endPort with a name",
        ),
        pytest.param(
            {"egress": [{"ports": [{"port": 80, "protocol": "ICMP"}]}]},
            "spec.egress[0].ports[0].protocol: 'ICMP' is none of TCP, UDP, SCTP",
            id="protocol",
        ),
        pytest.param(
            {"podSelector": {"app": "web"}},
            "spec.podSelector: unknown field 'app' of a label selector",
            id="labels without matchLabels",
        ),
        pytest.param(
            {"podSelector": {"matchExpressions": [{"key": "app", "operator": "Is", "values": ["x"]}]}},
            "spec.podSelector.matchExpressions[0].operator: 'Is' is none of In, NotIn, Exists, DoesNotExist",
            id="operator",
        ),
        pytest.param(
            {"podSelector": {"matchExpressions": [{"key": "app", "operator": "In"}]}},
            "spec.podSelector.matchExpressions[0].values: required for the operator In",
            id="In without values",
        ),
    ],
)
def test_a_policy_is_refused_for(spec: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidPolicy) as raised:
        translate(network_policy("p", **spec))
    assert str(raised.value) == text
