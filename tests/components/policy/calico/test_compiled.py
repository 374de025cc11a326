"""Calico's policies, tiers and sets in the compiler, beside NetworkPolicies."""

from __future__ import annotations

from typing import Any

import pytest

from kubewire.components.policy.compiler.compiler import Compiler
from kubewire.components.policy.model import Applied, ObjectKey

CALICO = "projectcalico.org/v3"
WEB = ObjectKey("Pod", "shop", "web")


def calico(kind: str, name: str, namespace: str = "", **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "labels": {"name": name}} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": CALICO, "kind": kind, "metadata": metadata, "spec": spec}


POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web"}},
    "spec": {"nodeName": "n1", "serviceAccountName": "front"},
    "status": {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]},
}
NETWORK_POLICY = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "np", "namespace": "shop"},
    "spec": {"podSelector": {}},
}


def compiled(*objects: dict[str, Any]) -> Compiler:
    compiler = Compiler()
    for obj in (POD, *objects):
        compiler.apply(obj)
    return compiler


def test_policies_are_asked_by_tier_and_order() -> None:
    state = compiled(
        NETWORK_POLICY,
        calico("Tier", "security", order=10),
        calico("GlobalNetworkPolicy", "last", selector="app == 'web'"),
        calico("NetworkPolicy", "first", "shop", order=5),
        calico("GlobalNetworkPolicy", "before", tier="security"),
        calico("GlobalNetworkPolicy", "nowhere", tier="unknown"),
    ).state
    assert [(tier, [key.name for key in keys]) for tier, keys in state.applied[WEB].ingress] == [
        ("security", ["before"]),
        ("default", ["first", "np", "last"]),
    ]


def test_an_object_as_calico_stores_it_is_the_same_as_of_its_api() -> None:
    stored = {**calico("GlobalNetworkPolicy", "p"), "apiVersion": "crd.projectcalico.org/v1"}
    assert compiled(stored).state.policies == compiled(calico("GlobalNetworkPolicy", "p")).state.policies != {}


def test_a_service_account_by_name_and_the_namespace_as_a_label() -> None:
    state = compiled(
        calico("GlobalNetworkPolicy", "a", selector="projectcalico.org/serviceaccount == 'front'"),
        calico("GlobalNetworkPolicy", "b", selector="projectcalico.org/namespace == 'office'"),
    ).state
    assert [[key.name for key in keys] for _, keys in state.applied[WEB].ingress] == [["a"]]


@pytest.mark.parametrize("field", ["doNotTrack", "preDNAT"])
def test_a_policy_for_hosts_alone_does_not_isolate_pods(field: str) -> None:
    special = calico("GlobalNetworkPolicy", "p", types=["Ingress"], applyOnForward=True)
    special["spec"][field] = True
    state = compiled(calico("HostEndpoint", "h", node="n1", interfaceName="eth0"), special).state
    assert state.applied[WEB] == Applied()
    assert state.applied[ObjectKey("HostEndpoint", "", "h")].ingress


def test_network_sets_are_members_of_selectors() -> None:
    rule = {"action": "Allow", "source": {"selector": "name == 'out'"}}
    compiler = compiled(
        calico("GlobalNetworkSet", "out", nets=["192.0.2.0/24", "2001:db8::1"]),
        calico("GlobalNetworkPolicy", "p", ingress=[rule]),
    )
    (members,) = compiler.state.members.values()
    assert members == {"192.0.2.0/24", "2001:db8::1/128"}
    compiler.changes()
    compiler.apply(calico("GlobalNetworkSet", "out", nets=["198.51.100.0/24"]))
    (change,) = compiler.changes().sets.values()
    assert [set(part) for part in change] == [{"198.51.100.0/24"}, {"192.0.2.0/24", "2001:db8::1/128"}]


def test_what_is_wrong_is_a_problem_of_the_object() -> None:
    compiler = compiled(calico("NetworkPolicy", "bad", "shop", selector="a ="))
    assert "spec.selector: invalid selector" in compiler.problems[ObjectKey("CalicoNetworkPolicy", "shop", "bad")]
    assert compiler.state.applied[WEB].ingress == ()
