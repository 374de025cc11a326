"""The policy compiler: an object from a file that no API server has checked is a problem, and no
error; what it refuses leaves nothing behind."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubewire.components.policy.compiler.compiler import Compiler
from kubewire.components.policy.compiler.kinds import key_of
from kubewire.components.policy.evaluator import Evaluator, Flow
from tests.components.policy.objects import namespace, network_policy, pod
from tests.components.policy.tables.cluster import EVERY, cluster, inwards, older, outwards, tcp
from tests.fuzz.mutation import mutated_json

SELECTOR = {
    "matchLabels": {"app": "a"},
    "matchExpressions": [{"key": "tier", "operator": "In", "values": ["x"]}],
}
PORTS = [{"port": 80, "endPort": 90, "protocol": "TCP"}, {"port": "web"}]
CALICO = {"apiVersion": "projectcalico.org/v3"}
OBJECTS: dict[str, dict[str, Any]] = {
    "Pod": pod("a", addresses=["10.0.0.1"], labels={"app": "a"}, ports=[("web", "TCP", 80)]),
    "Namespace": namespace("default", {"team": "x"}),
    "ServiceAccount": {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "default", "labels": {"a": "b"}},
    },
    "Node": {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "worker-1", "labels": {"pool": "edge"}},
        "status": {"addresses": [{"type": "InternalIP", "address": "172.18.0.3"}]},
    },
    "NetworkPolicy": network_policy(
        "p",
        podSelector=SELECTOR,
        policyTypes=["Ingress", "Egress"],
        ingress=[{"from": [{"podSelector": SELECTOR, "namespaceSelector": SELECTOR}], "ports": PORTS}],
        egress=[{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/24"]}}]}],
    ),
    "ClusterNetworkPolicy": cluster(
        "p",
        "Admin",
        5,
        {"pods": {"namespaceSelector": SELECTOR, "podSelector": SELECTOR}},
        ingress=[inwards("Pass", EVERY, protocols=[tcp(80), {"destinationNamedPort": "web"}], name="n")],
        egress=[outwards("Accept", {"networks": ["10.0.0.0/8"]}, {"nodes": SELECTOR}, {"domainNames": ["a.b"]})],
    ),
    "AdminNetworkPolicy": older(
        "AdminNetworkPolicy",
        "p",
        priority=5,
        subject=EVERY,
        ingress=[
            inwards("Allow", EVERY, ports=[{"portNumber": {"protocol": "TCP", "port": 80}}, {"namedPort": "web"}])
        ],
    ),
    "GlobalNetworkPolicy": {
        **CALICO,
        "kind": "GlobalNetworkPolicy",
        "metadata": {"name": "p"},
        "spec": {
            "tier": "default",
            "order": 5,
            "selector": "app == 'a'",
            "types": ["Ingress"],
            "ingress": [
                {
                    "action": "Deny",
                    "protocol": "TCP",
                    "source": {"selector": "has(x)", "nets": ["10.0.0.0/8"], "notPorts": ["80:90", 7]},
                    "destination": {"ports": [80, "web"], "namespaceSelector": "all()"},
                }
            ],
        },
    },
    "NetworkSet": {**CALICO, "kind": "NetworkSet", "metadata": {"name": "s"}, "spec": {"nets": ["10.0.0.0/8"]}},
    "Tier": {**CALICO, "kind": "Tier", "metadata": {"name": "t"}, "spec": {"order": 5, "defaultAction": "Pass"}},
    "HostEndpoint": {
        **CALICO,
        "kind": "HostEndpoint",
        "metadata": {"name": "h"},
        "spec": {"node": "worker-1", "interfaceName": "eth0", "expectedIPs": ["172.18.0.3"]},
    },
}


@pytest.mark.parametrize("kind", OBJECTS)
@given(st.randoms(use_true_random=False))
def test_any_object_compiles_or_is_a_problem(kind: str, source: random.Random) -> None:
    compiler = Compiler()
    for obj in OBJECTS.values():
        compiler.apply(obj)
    changed = mutated_json(source, OBJECTS[kind])
    if not isinstance(changed, dict):
        return
    compiler.apply(changed)
    compiler.changes()
    assert Evaluator(compiler.state).verdict(Flow("10.0.0.1", "192.0.2.1"))
    for obj in (*OBJECTS.values(), changed):
        key = key_of(obj)
        if key is not None:
            compiler.delete(key)
    state = compiler.state
    assert not (state.policies or state.sets or state.endpoints or compiler.problems)
