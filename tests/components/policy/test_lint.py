"""Each mistake that lint knows, and the correct form beside it, which it says nothing of."""

from __future__ import annotations

from typing import Any

import pytest

from kubewire.components.policy import files, lint
from kubewire.components.policy.files import Found
from tests.components.policy import objects

Object = dict[str, Any]

DB = objects.pod("db", "shop", labels={"app": "db"}, ports=[("pg", "TCP", 5432)])
WEB = objects.pod("web", "shop", labels={"app": "web"})
PODS = [DB, WEB]
DNS = {"to": [{"namespaceSelector": {}}], "ports": [{"protocol": "UDP", "port": 53}]}


def policy(**spec: Any) -> Object:
    return objects.network_policy("p", "shop", **spec)


def from_web(**more: Any) -> list[Object]:
    return [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], **more}]


def codes(*documents: Object, cluster: lint.Cluster | None = None) -> list[str]:
    found = [Found(obj, "f.yaml") for obj in documents]
    return [one.check.code for one in lint.lint(found, files.pods(found), cluster or lint.Cluster())]


@pytest.mark.parametrize(
    ("wrong", "right", "expected"),
    [
        (
            policy(ingress=[{"from": [{"ipBlock": {"cidr": "192.0.2.0/33"}}]}]),
            policy(ingress=[{"from": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}]),
            lint.INVALID,
        ),
        (
            policy(podSelector={"matchLabels": {"app": "bd"}}),
            policy(podSelector={"matchLabels": {"app": "db"}}),
            lint.SELECTS_NOTHING,
        ),
        (
            policy(ingress=[{"from": [{"podSelector": {"matchLabels": {"app": "wbe"}}}]}]),
            policy(ingress=from_web()),
            lint.PEER_SELECTS_NOTHING,
        ),
        (policy(policyTypes=["Egress"]), policy(policyTypes=["Egress"], egress=[DNS]), lint.NO_DNS),
        (
            policy(ingress=[{"from": [{"namespaceSelector": {}}, {"podSelector": {"matchLabels": {"app": "web"}}}]}]),
            policy(ingress=[{"from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "web"}}}]}]),
            lint.OR_FOR_AND,
        ),
        (
            policy(podSelector={"matchLabels": {"app": "db"}}, ingress=from_web(ports=[{"port": 80}])),
            policy(podSelector={"matchLabels": {"app": "db"}}, ingress=from_web(ports=[{"port": 5432}])),
            lint.NO_SUCH_PORT,
        ),
        (
            policy(podSelector={"matchLabels": {"app": "db"}}, ingress=from_web(ports=[{"port": "postgres"}])),
            policy(podSelector={"matchLabels": {"app": "db"}}, ingress=from_web(ports=[{"port": "pg"}])),
            lint.NO_SUCH_NAME,
        ),
        (
            policy(ingress=[{"from": [{"ipBlock": {"cidr": "10.244.0.0/24"}}]}]),
            policy(ingress=[{"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}]),
            lint.BLOCK_OVER_PODS,
        ),
        (
            policy(policyTypes=["Ingress", "Egress"], egress=[DNS, {"to": [{"ipBlock": {"cidr": "10.96.0.10/32"}}]}]),
            policy(policyTypes=["Ingress", "Egress"], egress=[DNS]),
            lint.BLOCK_OVER_PODS,
        ),
        (
            policy(policyTypes=["Ingress"], egress=[DNS]),
            policy(policyTypes=["Ingress", "Egress"], egress=[DNS]),
            lint.TYPE_WITHOUT_EFFECT,
        ),
    ],
    ids=lambda value: value.code if isinstance(value, lint.Check) else "",
)
def test_a_mistake_is_found_and_its_cure_is_not(wrong: Object, right: Object, expected: lint.Check) -> None:
    assert codes(*PODS, wrong) == [expected.code]
    assert codes(*PODS, right) == []


def test_a_namespace_by_its_name() -> None:
    by_name = [{"from": [{"namespaceSelector": {"matchLabels": {"name": "shop"}}}]}]
    assert lint.NAME_LABEL.code in codes(*PODS, policy(ingress=by_name))
    labelled = objects.namespace("shop", {"name": "shop"})
    assert codes(labelled, *PODS, policy(ingress=by_name)) == []


def test_pods_in_the_nodes_network_are_not_selected() -> None:
    agent = objects.pod("agent", "shop", labels={"app": "agent"}, hostNetwork=True)
    assert codes(DB, agent, policy(podSelector={"matchLabels": {"app": "agent"}})) == [lint.HOST_NETWORK.code]


def test_what_the_engine_does_not_enforce() -> None:
    flannel = lint.Cluster(engine="none")
    assert codes(*PODS, policy(), cluster=flannel) == [lint.NOT_ENFORCED.code]
    assert codes(*PODS, policy(), cluster=lint.Cluster(engine="weave-npc", kinds=("NetworkPolicy",))) == []


def test_without_pods_nothing_is_said_of_selectors() -> None:
    assert codes(policy(podSelector={"matchLabels": {"app": "db"}}, ingress=from_web(ports=[{"port": 80}]))) == []


def test_dns_may_be_allowed_by_another_policy() -> None:
    deny = objects.network_policy("deny", "shop", policyTypes=["Egress"])
    dns = objects.network_policy("dns", "shop", policyTypes=["Egress"], egress=[DNS])
    assert codes(*PODS, deny, dns) == []
    assert codes(*PODS, deny) == [lint.NO_DNS.code]


WORKLOADS = """
kind: Deployment
metadata: {name: web, namespace: shop}
spec: {template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, ports: [{containerPort: 80}]}]}}}
---
kind: CronJob
metadata: {name: backup}
spec: {jobTemplate: {spec: {template: {metadata: {labels: {app: backup}}, spec: {containers: [{name: c}]}}}}}
---
kind: List
items:
- {kind: Pod, metadata: {name: db, namespace: shop}, spec: {}, status: {podIP: 10.0.0.9}}
---
kind: Service
metadata: {name: web}
"""


def test_pods_of_files() -> None:
    found = list(files.objects_of(WORKLOADS, "w.yaml"))
    made = {pod["metadata"]["name"]: pod for pod in files.pods(found)}
    assert list(made) == ["web", "backup", "db"]
    assert made["web"]["metadata"] == {"name": "web", "namespace": "shop", "labels": {"app": "web"}}
    assert made["backup"]["metadata"]["namespace"] == "default"
    assert [pod["status"]["podIP"] for pod in made.values()] == ["192.0.2.1", "192.0.2.2", "10.0.0.9"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "w.yaml:"),
        ("just text", "w.yaml: a document is no Kubernetes object: it has no kind"),
        ("kind: Pod", "w.yaml: Pod: metadata.name is required"),
    ],
)
def test_what_is_wrong_with_a_file(text: str, said: str) -> None:
    with pytest.raises(files.FileError) as raised:
        list(files.objects_of(text, "w.yaml"))
    assert str(raised.value).startswith(said)


def test_every_code_is_used_once() -> None:
    assert len({check.code for check in lint.CHECKS}) == len(lint.CHECKS)
