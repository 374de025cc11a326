"""ClusterNetworkPolicy, AdminNetworkPolicy, BaselineAdminNetworkPolicy: what the truth tables do not
show."""

from __future__ import annotations

from typing import Any

import pytest

from kubewire.components.policy.compiler.compiler import Compiler
from kubewire.components.policy.evaluator import Evaluator, Flow
from kubewire.components.policy.model import ObjectKey
from tests.components.policy.objects import Object, namespace, pod
from tests.components.policy.tables.cluster import EVERY, cluster, inwards, older, outwards, tcp

WEB, DB, NODE = "10.244.1.2", "10.244.1.3", "172.18.0.3"
KEY = ObjectKey("ClusterNetworkPolicy", "", "p")


def node(name: str, address: str, **labels: str) -> Object:
    addresses = [{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": address}]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "status": {"addresses": addresses},
    }


def compiled(*policies: Object) -> Compiler:
    made = Compiler()
    for obj in (
        namespace("default"),
        pod("web", addresses=[WEB]),
        pod("db", addresses=[DB]),
        node("worker-1", NODE, pool="edge"),
        node("worker-2", "172.18.0.4"),
        *policies,
    ):
        made.apply(obj)
    return made


def evaluator(*policies: Object) -> Evaluator:
    return Evaluator(compiled(*policies).state)


def test_a_rule_is_named_with_its_own_name() -> None:
    rule = inwards("Deny", EVERY, name="tenants-apart")
    verdict = evaluator(cluster("p", "Admin", 1, EVERY, ingress=[rule])).verdict(Flow(WEB, DB))
    assert verdict.ingress.text == "ClusterNetworkPolicy p, ingress[0].from[0] (tenants-apart) denies"


def test_what_passes_everywhere_is_allowed_and_says_so() -> None:
    policy = cluster("p", "Baseline", 1, EVERY, ingress=[inwards("Pass", EVERY)])
    verdict = evaluator(policy).verdict(Flow(WEB, DB))
    assert verdict.allowed
    assert verdict.ingress.text == (
        "ClusterNetworkPolicy p, ingress[0].from[0] passes, and no later tier decides: traffic is allowed"
    )


def test_nodes_are_peers_by_their_labels_and_addresses() -> None:
    edge = {"nodes": {"matchLabels": {"pool": "edge"}}}
    found = evaluator(cluster("p", "Admin", 1, EVERY, egress=[outwards("Deny", edge)]))
    assert not found.verdict(Flow(WEB, NODE)).allowed
    assert found.verdict(Flow(WEB, "172.18.0.4")).allowed


def test_an_own_node_is_known_from_the_node_objects() -> None:
    found = evaluator(cluster("p", "Admin", 1, EVERY, ingress=[inwards("Deny", EVERY)]))
    text = f"{NODE} is the pod's own node, which always reaches it"
    assert found.verdict(Flow(NODE, DB)).ingress.text == text


@pytest.mark.parametrize(
    ("action", "allowed"), [("Accept", True), ("Deny", False), ("Pass", False)], ids=["Accept", "Deny", "Pass"]
)
def test_a_peer_of_an_unknown_kind_fails_closed(action: str, allowed: bool) -> None:
    """Accept does not match, and so the rule behind it decides; others deny everything."""
    unknown: Object = {"clouds": {}}
    rules = [inwards(action, unknown), inwards("Accept", EVERY)]
    found = evaluator(cluster("p", "Admin", 1, EVERY, ingress=rules))
    decision = found.verdict(Flow(WEB, DB)).ingress
    assert decision.allowed is allowed
    assert decision.origin is not None
    assert decision.origin.rule == (1 if action == "Accept" else 0)


@pytest.mark.parametrize(("action", "allowed"), [("Accept", True), ("Deny", False)], ids=["Accept", "Deny"])
def test_a_protocol_of_an_unknown_kind_fails_closed(action: str, allowed: bool) -> None:
    rules = [inwards(action, EVERY, protocols=[tcp(80), {"quic": {}}]), inwards("Accept", EVERY)]
    verdict = evaluator(cluster("p", "Admin", 1, EVERY, ingress=rules)).verdict(Flow(WEB, DB, "UDP", 9))
    assert verdict.allowed is allowed


def test_domain_names_match_by_name_only_and_are_reported() -> None:
    names = {"domainNames": ["*.example.org", "example.net."]}
    rules = [outwards("Accept", names), outwards("Deny", {"networks": ["0.0.0.0/0"]})]
    compiler = compiled(cluster("p", "Admin", 1, EVERY, egress=rules))
    assert "egress[0].to[0].domainNames" in compiler.problems[KEY]
    (policy,) = compiler.state.policies.values()
    assert policy.egress[0].match.destination.nets == ()
    found = Evaluator(compiler.state)
    names_allowed = {
        name: found.verdict(Flow(WEB, "203.0.113.7", name=name)).allowed
        for name in ("a.b.example.org", "example.org", "notexample.org", "Example.net", "")
    }
    assert names_allowed == {
        "a.b.example.org": True,
        "example.org": False,
        "notexample.org": False,
        "Example.net": True,
        "": False,
    }


def changed(**fields: Any) -> Object:
    policy = cluster("p", "Admin", 1, EVERY, ingress=[inwards("Deny", EVERY)])
    return {**policy, "spec": {**policy["spec"], **fields}}


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        pytest.param(changed(tier="Top"), "spec.tier: 'Top' is neither Admin nor Baseline", id="unknown tier"),
        pytest.param(changed(priority=1001), "spec.priority: 1001 is no number from 0 to 1000", id="priority"),
        pytest.param(changed(subject={}), "spec.subject: must have namespaces or pods", id="no subject"),
        pytest.param(
            changed(subject={"namespaces": {}, "pods": {}}),
            "spec.subject: must have one field, not namespaces, pods",
            id="two subjects",
        ),
        pytest.param(
            changed(ingress=[inwards("Allow", EVERY)]),
            "spec.ingress[0].action: 'Allow' is none of Accept, Deny, Pass",
            id="the action of the older kind",
        ),
        pytest.param(
            changed(ingress=[inwards("Deny")]), "spec.ingress[0].from: must have at least one peer", id="no peer"
        ),
        pytest.param(
            changed(egress=[outwards("Deny", {"networks": ["10.0.0.0/33"]})]),
            "spec.egress[0].to[0].networks[0]: '10.0.0.0/33' is not a valid CIDR",
            id="no network",
        ),
        pytest.param(
            changed(ingress=[inwards("Deny", EVERY, protocols=[tcp(90, 80)])]),
            "spec.ingress[0].protocols[0].tcp.destinationPort.range: 90 to 80 must be ports between 1 and 65535 "
            "in ascending order",
            id="a range that descends",
        ),
        pytest.param(
            changed(egress=[outwards("Deny", {"domainNames": ["example.org"]})]),
            "spec.egress[0].to[0].domainNames: is only for rules that accept",
            id="denied names",
        ),
    ],
)
def test_a_policy_is_refused_for(policy: Object, text: str) -> None:
    compiler = compiled(policy)
    assert compiler.problems == {KEY: text}
    assert not compiler.state.policies


def test_a_baseline_of_another_name_is_refused() -> None:
    compiler = compiled(older("BaselineAdminNetworkPolicy", "mine", subject=EVERY, ingress=[inwards("Deny", EVERY)]))
    (text,) = compiler.problems.values()
    assert text == "metadata.name: the only BaselineAdminNetworkPolicy is called default"
