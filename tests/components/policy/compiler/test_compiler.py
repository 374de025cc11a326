"""The compiler: what it keeps of pods and policies, and what it says has changed."""

from __future__ import annotations

from typing import Any

import pytest

from kubewire.components.policy.compiler.compiler import Compiler
from kubewire.components.policy.model import Applied, ObjectKey
from tests.components.policy.objects import namespace, network_policy, pod

A, B, C = (ObjectKey("Pod", "default", name) for name in "abc")
ALLOW_A = ObjectKey("NetworkPolicy", "default", "allow-a")


def allow_a(**spec: Any) -> dict[str, Any]:
    """Only a may reach the pods that have the label app=b."""
    peer = {"podSelector": {"matchLabels": {"app": "a"}}}
    spec = {"podSelector": {"matchLabels": {"app": "b"}}, "ingress": [{"from": [peer]}], **spec}
    return network_policy("allow-a", **spec)


def compiler(*objects: dict[str, Any]) -> Compiler:
    made = Compiler()
    for obj in objects:
        made.apply(obj)
    return made


def two_pods() -> Compiler:
    made = compiler(
        namespace("default"),
        pod("a", addresses=["10.244.1.2"], labels={"app": "a"}),
        pod("b", addresses=["10.244.1.3"], labels={"app": "b"}),
        allow_a(),
    )
    made.changes()
    return made


def the_set(made: Compiler) -> frozenset[str]:
    (members,) = made.state.members.values()
    return members


def test_a_policy_applies_to_the_pods_it_selects_and_its_peers_are_a_set() -> None:
    state = two_pods().state
    assert state.applied[A] == Applied()
    assert state.applied[B] == Applied(ingress=(("default", (ALLOW_A,)),))
    assert [*state.members.values()] == [frozenset({"10.244.1.2/32"})]


def test_the_order_of_objects_does_not_matter() -> None:
    made = compiler(
        allow_a(),
        pod("b", addresses=["10.244.1.3"], labels={"app": "b"}),
        pod("a", addresses=["10.244.1.2"], labels={"app": "a"}),
        namespace("default"),
    )
    assert made.state.applied == two_pods().state.applied
    assert dict(made.state.members) == dict(two_pods().state.members)


def test_nothing_changed_after_an_object_that_says_the_same() -> None:
    made = two_pods()
    made.apply(allow_a())
    made.apply(pod("a", addresses=["10.244.1.2"], labels={"app": "a"}))
    assert not made.changes()


def test_a_label_that_makes_a_pod_a_peer_changes_only_the_set() -> None:
    made = two_pods()
    made.apply(pod("c", addresses=["10.244.1.4"]))
    made.changes()
    made.apply(pod("c", addresses=["10.244.1.4"], labels={"app": "a"}))
    changes = made.changes()
    assert list(changes.sets.values()) == [(frozenset({"10.244.1.4/32"}), frozenset())]
    assert not (changes.endpoints or changes.policies or changes.new_sets or changes.old_sets)


def test_a_label_that_makes_a_pod_a_subject_changes_only_the_pod() -> None:
    made = two_pods()
    made.apply(pod("a", addresses=["10.244.1.2"], labels={"app": "b"}))
    changes = made.changes()
    assert changes.endpoints == {A}
    assert list(changes.sets.values()) == [(frozenset(), frozenset({"10.244.1.2/32"}))]


def test_what_changes_and_changes_back_is_no_change() -> None:
    made = two_pods()
    made.apply(pod("a", addresses=["10.244.1.2"], labels={"app": "b"}))
    made.apply(pod("a", addresses=["10.244.1.2"], labels={"app": "a"}))
    made.delete(ALLOW_A)
    made.apply(allow_a())
    assert not made.changes()


def test_the_deletion_of_a_policy_frees_its_pods_and_its_sets() -> None:
    made = two_pods()
    (old,) = made.state.sets
    made.delete(ALLOW_A)
    changes = made.changes()
    assert changes.endpoints == {B}
    assert changes.policies == {ALLOW_A}
    assert changes.old_sets == {old}
    assert not made.state.sets
    assert not made.state.members


def test_policies_share_a_set_until_the_last_one_is_gone() -> None:
    made = two_pods()
    other = allow_a()
    other["metadata"]["name"] = "other"
    made.apply(other)
    assert not made.changes().new_sets
    made.delete(ALLOW_A)
    assert not made.changes().old_sets
    made.delete(ObjectKey("NetworkPolicy", "default", "other"))
    assert len(made.changes().old_sets) == 1


def test_a_changed_rule_does_not_touch_the_pods() -> None:
    made = two_pods()
    made.apply(allow_a(ingress=[{"ports": [{"port": 80}]}]))
    changes = made.changes()
    assert changes.policies == {ALLOW_A}
    assert not changes.endpoints


def test_an_address_reused_before_the_old_pod_is_gone_stays_in_the_set() -> None:
    made = two_pods()
    made.apply(pod("c", addresses=["10.244.1.2"], labels={"app": "a"}))
    made.delete(A)
    assert the_set(made) == {"10.244.1.2/32"}
    assert not made.changes().sets


def test_the_pod_that_got_an_address_last_comes_last() -> None:
    made = compiler(pod("new", addresses=[]), pod("old", addresses=["10.244.1.2"]), pod("z", addresses=[]))
    made.apply(pod("new", addresses=["10.244.1.2"]))
    assert [key.name for key in made.state.endpoints] == ["old", "z", "new"]


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"phase": "Succeeded"}, id="has succeeded"),
        pytest.param({"phase": "Failed"}, id="has failed"),
        pytest.param({"hostNetwork": True}, id="uses the node's network"),
    ],
)
def test_a_pod_is_no_endpoint_if_it(changed: dict[str, Any]) -> None:
    made = two_pods()
    made.apply(pod("a", addresses=["10.244.1.2"], labels={"app": "a"}, **changed))
    assert made.changes().endpoints == {A}
    assert A not in made.state.endpoints
    assert not the_set(made)


def test_a_terminating_pod_stays_a_peer_until_it_has_ended() -> None:
    made = two_pods()
    leaving = pod("a", addresses=["10.244.1.2"], labels={"app": "a"})
    leaving["metadata"]["deletionTimestamp"] = "2026-12-01T00:00:00Z"
    made.apply(leaving)
    assert the_set(made) == {"10.244.1.2/32"}


def test_a_pod_without_an_address_has_its_policies_before_its_first_packet() -> None:
    made = two_pods()
    made.apply(pod("c", labels={"app": "b"}, phase="Pending"))
    assert made.state.applied[C].ingress == (("default", (ALLOW_A,)),)


def test_a_namespace_label_changes_the_sets_that_select_namespaces() -> None:
    peer = {"namespaceSelector": {"matchLabels": {"team": "x"}}}
    made = compiler(
        pod("a", "other", addresses=["10.244.1.2"]),
        network_policy("from-x", ingress=[{"from": [peer]}]),
    )
    assert not the_set(made)
    made.apply(namespace("other", {"team": "x"}))
    assert the_set(made) == {"10.244.1.2/32"}
    made.delete(ObjectKey("Namespace", "", "other"))
    assert not the_set(made)


def test_a_network_set_has_the_labels_of_its_namespace_as_pods_have() -> None:
    """Calico gives it the profile of the namespace."""
    where = {"namespaceSelector": "team == 'x'", "selector": "has(lan)"}
    rule = {"action": "Allow", "source": where}
    spec = {"selector": "all()", "types": ["Ingress"], "ingress": [rule]}
    networks = {"name": "office", "namespace": "other", "labels": {"lan": ""}}
    api = {"apiVersion": "projectcalico.org/v3"}
    made = compiler(
        {**api, "kind": "NetworkSet", "metadata": networks, "spec": {"nets": ["192.0.2.0/24"]}},
        {**api, "kind": "GlobalNetworkPolicy", "metadata": {"name": "p"}, "spec": spec},
    )
    assert not the_set(made)
    made.apply(namespace("other", {"team": "x"}))
    assert the_set(made) == {"192.0.2.0/24"}


def test_an_object_that_cannot_be_compiled_is_named_with_the_reason() -> None:
    made = two_pods()
    made.apply(allow_a(ingress=[{"from": [{"ipBlock": {"cidr": "10.0.0.0"}}]}]))
    text = "spec.ingress[0].from[0].ipBlock.cidr: '10.0.0.0' is not a valid CIDR"
    assert made.problems == {ALLOW_A: text}
    assert made.state.applied[B] == Applied()
    made.apply(allow_a())
    assert not made.problems


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"ingress": ["all"]}, id="a rule that is a text"),
        pytest.param({"ingress": [{"from": 7}]}, id="peers that are a number"),
        pytest.param({"ingress": [{"ports": [80]}]}, id="a port that is a number"),
    ],
)
def test_an_object_that_no_server_has_checked_is_a_problem_and_no_error(spec: dict[str, Any]) -> None:
    made = two_pods()
    made.apply(allow_a(**spec))
    assert made.problems[ALLOW_A].startswith("does not have the form of its kind")
    assert not made.state.policies


def test_a_policy_with_ten_thousand_peers_is_compiled_and_leaves_nothing_behind() -> None:
    made = two_pods()
    peers = [{"podSelector": {"matchLabels": {"app": f"a{number}"}}} for number in range(10_000)]
    made.apply(allow_a(ingress=[{"from": peers}]))
    assert len(made.state.policies[ALLOW_A].ingress) == len(made.changes().new_sets) == 10_000
    made.apply(pod("c", addresses=["10.244.1.9"], labels={"app": "a7"}))
    assert len(made.changes().sets) == 1
    made.delete(ALLOW_A)
    assert not made.state.sets


def test_objects_of_other_kinds_are_ignored() -> None:
    made = two_pods()
    made.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}})
    made.delete(ObjectKey("Service", "default", "s"))
    assert not made.changes()
