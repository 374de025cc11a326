"""The evaluator: the verdict and the words in which it names the rule that decides."""

from __future__ import annotations

from typing import Any

import pytest

from kubewire.components.policy.compiler.compiler import Compiler
from kubewire.components.policy.evaluator import Evaluator, Flow
from kubewire.components.policy.model import Direction, ObjectKey, Origin
from tests.components.policy.objects import namespace, network_policy, pod

CLIENT, WEB = "10.244.1.2", "10.244.2.3"
NODES = {"worker-1": ["172.18.0.3", "10.244.1.1"], "worker-2": ["172.18.0.4", "10.244.2.1"]}
PODS = [
    namespace("default"),
    pod("client", addresses=[CLIENT, "fd00::2"], labels={"app": "client"}),
    pod("web", addresses=[WEB], labels={"app": "web"}, node="worker-2"),
]


def evaluator(*policies: dict[str, Any]) -> Evaluator:
    compiler = Compiler()
    for obj in (*PODS, *policies):
        compiler.apply(obj)
    assert not compiler.problems
    return Evaluator(compiler.state, NODES)


def web(**spec: Any) -> dict[str, Any]:
    return network_policy("web", podSelector={"matchLabels": {"app": "web"}}, **spec)


FROM = {"podSelector": {"matchLabels": {"app": "other"}}}
CLIENTS = {"podSelector": {"matchLabels": {"app": "client"}}}


def test_without_a_policy_everything_is_allowed() -> None:
    verdict = evaluator().verdict(Flow(CLIENT, WEB, "TCP", 80))
    assert verdict.allowed
    assert verdict.ingress.text == "no policy selects the pod"
    assert verdict.egress.text == "no policy selects the pod"


def test_an_allowing_rule_is_named_with_its_peer() -> None:
    policy = web(ingress=[{"from": [FROM, CLIENTS]}])
    decision = evaluator(policy).verdict(Flow(CLIENT, WEB, "TCP", 80)).ingress
    assert decision.text == "NetworkPolicy default/web, ingress[0].from[1] allows"
    assert decision.origin == Origin(ObjectKey("NetworkPolicy", "default", "web"), Direction.INGRESS, 0, 1)
    assert decision.tier == "default"


def test_isolation_names_the_policies_that_isolate() -> None:
    verdict = evaluator(web(), network_policy("deny-all")).verdict(Flow(CLIENT, WEB, "TCP", 80))
    assert not verdict.allowed
    assert verdict.egress.allowed
    names = "NetworkPolicy default/deny-all, NetworkPolicy default/web"
    assert verdict.ingress.text == f"isolated by {names}, no rule allows"
    assert [key.name for key in verdict.ingress.isolated_by] == ["deny-all", "web"]


def test_a_policy_of_the_other_direction_says_nothing() -> None:
    verdict = evaluator(web()).verdict(Flow(WEB, CLIENT, "TCP", 80))
    assert verdict.egress.text == "no policy that selects the pod acts on its egress"


def test_both_directions_must_allow() -> None:
    deny = network_policy("deny-all", policyTypes=["Egress"])
    verdict = evaluator(deny).verdict(Flow(CLIENT, WEB, "TCP", 80))
    assert not verdict.allowed
    assert verdict.ingress.allowed
    assert verdict.egress.text == "isolated by NetworkPolicy default/deny-all, no rule allows"


@pytest.mark.parametrize(
    ("source", "allowed"),
    [
        pytest.param("172.18.0.4", True, id="its own node"),
        pytest.param("10.244.2.1", True, id="its own node by the bridge's address"),
        pytest.param("172.18.0.3", False, id="another node"),
        pytest.param("203.0.113.10", False, id="a client outside"),
    ],
)
def test_an_isolated_pod_is_reached_by(source: str, allowed: bool) -> None:
    decision = evaluator(web()).verdict(Flow(source, WEB, "TCP", 80)).ingress
    assert decision.allowed is allowed
    if allowed:
        assert decision.text == f"{source} is the pod's own node, which always reaches it"


def test_a_pod_always_reaches_itself() -> None:
    deny = network_policy("deny-all", policyTypes=["Ingress", "Egress"])
    verdict = evaluator(deny).verdict(Flow(CLIENT, CLIENT, "TCP", 80))
    assert verdict.allowed
    assert verdict.egress.text == "a pod always reaches itself"


def test_an_address_in_another_spelling_is_the_same() -> None:
    policy = web(ingress=[{"from": [{"ipBlock": {"cidr": "FD00:0::/64"}}]}])
    found = evaluator(policy)
    assert found.verdict(Flow("fd00:0:0::2", WEB, "tcp", 80)).ingress.allowed
    client = found.pod_at("FD00::0:2")
    assert client is not None
    assert client.key.name == "client"


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(ValueError, match="web"):
        evaluator().verdict(Flow(CLIENT, "web"))


def test_an_address_that_two_pods_show_is_that_of_the_last() -> None:
    compiler = Compiler()
    for obj in PODS:
        compiler.apply(obj)
    compiler.apply(pod("new", addresses=[WEB]))
    found = Evaluator(compiler.state, NODES).pod_at(WEB)
    assert found is not None
    assert found.key.name == "new"


def test_an_update_follows_the_compiler() -> None:
    compiler = Compiler()
    for obj in (*PODS, web()):
        compiler.apply(obj)
    compiler.changes()
    found = Evaluator(compiler.state, NODES)
    assert not found.verdict(Flow(CLIENT, WEB)).allowed
    compiler.apply(web(ingress=[{}]))
    found.update(compiler.state, compiler.changes())
    assert found.verdict(Flow(CLIENT, WEB)).allowed
    compiler.apply(pod("late", addresses=["10.244.2.9"], labels={"app": "web"}, node="worker-2"))
    found.update(compiler.state, compiler.changes())
    assert found.verdict(Flow(CLIENT, "10.244.2.9")).ingress.text == "NetworkPolicy default/web, ingress[0] allows"


def test_an_update_knows_addresses_and_nodes_that_moved() -> None:
    compiler = Compiler()
    for obj in (*PODS, network_policy("deny-all")):
        compiler.apply(obj)
    compiler.changes()
    found = Evaluator(compiler.state)

    def update() -> str:
        found.update(compiler.state, compiler.changes())
        pod_there = found.pod_at(WEB)
        return pod_there.key.name if pod_there else ""

    compiler.apply(pod("new", addresses=[WEB]))
    assert update() == "new"
    compiler.delete(ObjectKey("Pod", "default", "new"))
    assert update() == "web"
    compiler.apply(pod("web", addresses=["10.244.2.77"]))
    assert update() == ""
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "worker-1"}}
    compiler.apply({**node, "status": {"addresses": [{"type": "InternalIP", "address": "172.18.0.9"}]}})
    update()
    assert found.verdict(Flow("172.18.0.9", CLIENT)).allowed
    compiler.delete(ObjectKey("Node", "", "worker-1"))
    update()
    assert not found.verdict(Flow("172.18.0.9", CLIENT)).allowed
