"""Each mistake that lint knows, and the correct form beside it, which it says nothing of."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree

import pytest

from kubewire.components.policy import files
from kubewire.components.policy.files import Found
from kubewire.components.policy.lint import checks, forms
from kubewire.components.policy.lint.policies import Cluster, lint
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


def calico(*rules: Object) -> Object:
    """A policy of Calico's with these rules for ingress."""
    metadata = {"name": "c", "namespace": "shop"}
    spec = {"selector": "app == 'db'", "ingress": list(rules)}
    return {"apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


def codes(*documents: Object, cluster: Cluster | None = None) -> list[str]:
    found = [Found(obj, "f.yaml") for obj in documents]
    return [one.check.code for one in lint(found, files.pods(found), cluster or Cluster())]


@pytest.mark.parametrize(
    ("wrong", "right", "expected"),
    [
        (
            policy(ingress=[{"from": [{"ipBlock": {"cidr": "192.0.2.0/33"}}]}]),
            policy(ingress=[{"from": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}]),
            checks.INVALID,
        ),
        (
            policy(podSelector={"matchLabels": {"app": "bd"}}),
            policy(podSelector={"matchLabels": {"app": "db"}}),
            checks.SELECTS_NOTHING,
        ),
        (
            policy(ingress=[{"from": [{"podSelector": {"matchLabels": {"app": "wbe"}}}]}]),
            policy(ingress=from_web()),
            checks.PEER_SELECTS_NOTHING,
        ),
        (policy(policyTypes=["Egress"]), policy(policyTypes=["Egress"], egress=[DNS]), checks.NO_DNS),
        (
            policy(ingress=[{"from": [{"namespaceSelector": {}}, {"podSelector": {"matchLabels": {"app": "web"}}}]}]),
            policy(ingress=[{"from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "web"}}}]}]),
            checks.OR_FOR_AND,
        ),
        (
            policy(podSelector={"matchLabels": {"app": "db"}}, ingress=from_web(ports=[{"port": 80}])),
            policy(podSelector={"matchLabels": {"app": "db"}}, ingress=from_web(ports=[{"port": 5432}])),
            checks.NO_SUCH_PORT,
        ),
        (
            policy(podSelector={"matchLabels": {"app": "db"}}, ingress=from_web(ports=[{"port": "postgres"}])),
            policy(podSelector={"matchLabels": {"app": "db"}}, ingress=from_web(ports=[{"port": "pg"}])),
            checks.NO_SUCH_NAME,
        ),
        (
            policy(ingress=[{"from": [{"ipBlock": {"cidr": "10.244.0.0/24"}}]}]),
            policy(ingress=[{"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}]),
            checks.BLOCK_OVER_PODS,
        ),
        (
            policy(
                policyTypes=["Ingress", "Egress"],
                ingress=[],
                egress=[DNS, {"to": [{"ipBlock": {"cidr": "10.96.0.10/32"}}]}],
            ),
            policy(policyTypes=["Ingress", "Egress"], ingress=[], egress=[DNS]),
            checks.BLOCK_OVER_PODS,
        ),
        (
            policy(policyTypes=["Ingress"], egress=[DNS]),
            policy(policyTypes=["Ingress", "Egress"], ingress=[], egress=[DNS]),
            checks.TYPE_WITHOUT_EFFECT,
        ),
        (
            policy(policyTypes=["Ingress", "Egress"], egress=[DNS]),
            policy(policyTypes=["Ingress", "Egress"], egress=[DNS], ingress=[{}]),
            checks.TYPE_WITHOUT_RULES,
        ),
        (
            objects.network_policy("allow-all", "shop", ingress=[]),
            objects.network_policy("allow-all", "shop", ingress=[{}]),
            checks.NOTHING_ALLOWED,
        ),
        (
            policy(ingress=[{"from": [{"ipBlock": {"cidr": "192.0.2.0/24", "except": ["198.51.100.0/24"]}}]}]),
            policy(ingress=[{"from": [{"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.128/25"]}}]}]),
            checks.EXCEPT_OUTSIDE,
        ),
        (
            calico({"action": "Deny"}, {"action": "Allow", "protocol": "TCP"}),
            calico({"action": "Allow", "protocol": "TCP"}, {"action": "Log"}, {"action": "Deny"}),
            checks.SHADOWED,
        ),
    ],
    ids=lambda value: value.code if isinstance(value, checks.Check) else "",
)
def test_a_mistake_is_found_and_its_cure_is_not(wrong: Object, right: Object, expected: checks.Check) -> None:
    assert codes(*PODS, wrong) == [expected.code]
    assert codes(*PODS, right) == []


def test_a_namespace_by_its_name() -> None:
    by_name = [{"from": [{"namespaceSelector": {"matchLabels": {"name": "shop"}}}]}]
    assert checks.NAME_LABEL.code in codes(*PODS, policy(ingress=by_name))
    labelled = objects.namespace("shop", {"name": "shop"})
    assert codes(labelled, *PODS, policy(ingress=by_name)) == []


def test_what_selects_all_pods_of_nowhere_says_so() -> None:
    everywhere = [{"from": [{"namespaceSelector": {"matchLabels": {"team": "ops"}}}]}]
    found = [Found(obj, "f.yaml") for obj in (*PODS, policy(ingress=everywhere))]
    (one,) = lint(found, files.pods(found), Cluster())
    assert one.text == 'no pod of the files is in namespaces with team == "ops"'


def test_pods_in_the_nodes_network_are_not_selected() -> None:
    agent = objects.pod("agent", "shop", labels={"app": "agent"}, hostNetwork=True)
    assert codes(DB, agent, policy(podSelector={"matchLabels": {"app": "agent"}})) == [checks.HOST_NETWORK.code]


def test_what_the_engine_does_not_enforce() -> None:
    flannel = Cluster(engine="none")
    assert codes(*PODS, policy(), cluster=flannel) == [checks.NOT_ENFORCED.code]
    assert codes(*PODS, policy(), cluster=Cluster(engine="weave-npc", kinds=("NetworkPolicy",))) == []


def test_without_pods_nothing_is_said_of_selectors() -> None:
    assert codes(policy(podSelector={"matchLabels": {"app": "db"}}, ingress=from_web(ports=[{"port": 80}]))) == []


def test_dns_may_be_allowed_by_another_policy() -> None:
    deny = objects.network_policy("deny", "shop", policyTypes=["Egress"])
    dns = objects.network_policy("dns", "shop", policyTypes=["Egress"], egress=[DNS])
    assert codes(*PODS, deny, dns) == []
    assert codes(*PODS, deny) == [checks.NO_DNS.code]


def test_two_that_say_the_same_and_one_that_is_defined_twice() -> None:
    one, same = (objects.network_policy(name, "shop", ingress=from_web()) for name in ("one", "same"))
    other = objects.network_policy("one", "shop", ingress=[{}])
    assert codes(*PODS, one, same) == [checks.DUPLICATE.code]
    assert codes(*PODS, one, other) == [checks.DEFINED_TWICE.code]


MANIFEST = """\
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec: {containers: [{name: c, ports: [{containerPort: 5432}]}]}
---
kind: List
items:
- apiVersion: networking.k8s.io/v1
  kind: NetworkPolicy
  metadata: {name: p, namespace: shop}
  spec:
    podSelector:
      matchLabels: {app: bd}
    ingress:
    - from:
      - ipBlock: {cidr: 192.0.2.0/24}
      - ipBlock: {cidr: 10.244.7.0/24}
    - ports: [{port: 80}]
"""


def linted(text: str) -> tuple[list[Found], list[checks.Finding]]:
    found = list(files.objects_of(text, "m.yaml"))
    return found, lint(found, files.pods(found), Cluster())


def test_a_finding_has_the_line_of_its_field() -> None:
    _, findings = linted(MANIFEST)
    assert [(one.check, one.place, one.excerpt.strip()) for one in findings] == [
        (checks.SELECTS_NOTHING, "m.yaml:11", "podSelector:"),
        (checks.BLOCK_OVER_PODS, "m.yaml:16", "- ipBlock: {cidr: 10.244.7.0/24}"),
    ]


@pytest.mark.parametrize(
    ("path", "line"),
    [("", 7), ("spec", 10), ("spec.ingress[1].ports", 17), ("spec.ingress[1].from[3]", 17), ("spec.egress", 10)],
)
def test_a_field_that_is_not_written_has_the_line_of_what_is(path: str, line: int) -> None:
    found, _ = linted(MANIFEST)
    assert found[1].line_of(path) == line


def test_the_forms_of_output() -> None:
    found, findings = linted(MANIFEST)
    text = forms.WRITERS["text"](found, findings).splitlines()
    assert text[:4] == [
        "m.yaml:11: warning KW003: The policy selects no pod",
        "    11 |     podSelector:",
        "    NetworkPolicy shop/p, spec.podSelector",
        '    no pod of the files matches app == "bd" in namespace shop',
    ]
    suite = ElementTree.fromstring(forms.WRITERS["junit"](found, findings))
    assert (suite.get("tests"), suite.get("failures")) == ("1", "1")
    (case,) = suite
    assert (case.get("classname"), case.get("name")) == ("m.yaml", "NetworkPolicy shop/p")
    assert "m.yaml:16: warning KW009" in str(case[0].text)
    clean = ElementTree.fromstring(forms.WRITERS["junit"](found, []))
    assert (clean.get("failures"), len(clean), len(clean[0])) == ("0", 1, 0)
    sarif = json.loads(forms.WRITERS["sarif"](found, findings))
    regions = [one["locations"][0]["physicalLocation"]["region"] for one in sarif["runs"][0]["results"]]
    assert regions == [{"startLine": 11}, {"startLine": 16}]


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
    assert len({check.code for check in checks.CHECKS}) == len(checks.CHECKS)
