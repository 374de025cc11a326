"""Which pods a node cannot take, and why, in upstream's words."""

from __future__ import annotations

from typing import Any

import pytest

from kubewire.components.kubelet.pod.admission import Rejection, reject

ALLOCATABLE = {"cpu": "2", "memory": "1Gi", "pods": "3"}
NODE: Any = {
    "metadata": {"name": "n", "labels": {"zone": "a"}},
    "spec": {"taints": [{"key": "k", "effect": "NoExecute"}, {"key": "s", "effect": "NoSchedule"}]},
}
TOLERANT = [{"key": "k", "operator": "Exists"}]
PORTS = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"
AFFINITY = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"
TAINTS = "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate"


def pod(requests: Any = None, port: int = 0, static: bool = False, **spec: Any) -> Any:
    container: Any = {"name": "c", "resources": {"requests": requests or {}}}
    if port:
        container["ports"] = [{"containerPort": 1, "hostPort": port}]
    annotations = {"kubernetes.io/config.source": "file"} if static else {}
    return {
        "metadata": {"name": "p", "annotations": annotations},
        "spec": {"containers": [container], "tolerations": TOLERANT, **spec},
    }


@pytest.mark.parametrize(
    ("asked", "others", "rejection"),
    [
        (pod(), [], None),
        (pod({"cpu": "1500m"}), [pod({"cpu": "500m"})], None),
        (
            pod({"cpu": "1500m"}), [pod({"cpu": "501m"})],
            ("OutOfcpu", "Node didn't have enough resource: cpu, requested: 1500, used: 501, capacity: 2000"),
        ),
        (
            pod({"memory": "2Gi"}), [],
            ("OutOfmemory", "Node didn't have enough resource: memory, requested: 2147483648, used: 0, capacity: 1073741824"),
        ),
        (
            pod(), [pod(), pod(), pod()],
            ("OutOfpods", "Node didn't have enough resource: pods, requested: 1, used: 3, capacity: 3"),
        ),
        (pod({"example.com/gpu": "1"}), [], None),
        (pod(port=80), [pod(port=81)], None),
        (pod(port=80), [pod(port=80)], ("NodePorts", PORTS)),
        (pod(nodeSelector={"zone": "a"}), [], None),
        (pod(nodeSelector={"zone": "b"}), [], ("NodeAffinity", AFFINITY)),
        (pod({"cpu": "3"}, nodeSelector={"zone": "b"}), [], ("OutOfcpu", "Node didn't have enough resource: cpu, requested: 3000, used: 0, capacity: 2000")),
        (pod(tolerations=[]), [], ("TaintToleration", TAINTS)),
        (pod(tolerations=[], static=True), [], None),
    ],
    ids=[
        "nothing against it", "resources just fit", "cpu", "memory", "pods", "a resource that the node does not know",
        "another port", "the same port", "selector", "another selector", "resources come first", "taint", "a static pod",
    ],
)  # fmt: skip
def test_a_pod_that_the_node_cannot_take(asked: Any, others: Any, rejection: tuple[str, str] | None) -> None:
    found = reject(asked, others, NODE, ALLOCATABLE)
    assert (found and (found.reason, found.message)) == rejection


def test_what_depends_on_the_node_is_told() -> None:
    assert reject(pod(tolerations=[]), [], NODE, ALLOCATABLE) == Rejection("TaintToleration", TAINTS, of_node=True)
    found = reject(pod(port=80), [pod(port=80)], NODE, ALLOCATABLE)
    assert found is not None and not found.of_node
