"""What objects use of quotas, and which objects a quota's scopes select."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kubewire.components.kubeapi.amounts import shown
from kubewire.components.kubeapi.quotas import matches, missing, resource_of, usage

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def pod(requests: Any = None, limits: Any = None, phase: str = "Running", **spec: Any) -> Any:
    resources = {key: value for key, value in (("requests", requests), ("limits", limits)) if value}
    containers = [{"name": "c", "resources": resources}]
    return {"metadata": {}, "spec": {"containers": containers, **spec}, "status": {"phase": phase}}


def ended(minutes: int) -> Any:
    gone = pod()
    stamp = (NOW - timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")
    gone["metadata"] = {"deletionTimestamp": stamp, "deletionGracePeriodSeconds": 30}
    return gone


def service(**spec: Any) -> Any:
    return {"metadata": {}, "spec": {"ports": [{"nodePort": 30000}, {}], **spec}}


@pytest.mark.parametrize(
    ("resource", "obj", "want"),
    [
        pytest.param(
            "pods",
            pod({"cpu": "100m", "example.com/gpu": "2"}, {"cpu": "200m", "memory": "1Gi"}),
            {
                "count/pods": "1",
                "cpu": "100m",
                "limits.cpu": "200m",
                "limits.memory": "1Gi",
                "pods": "1",
                "requests.cpu": "100m",
                "requests.example.com/gpu": "2",
            },
            id="a pod",
        ),
        pytest.param("pods", pod({"cpu": "1"}, phase="Succeeded"), {"count/pods": "1"}, id="a pod that has ended"),
        pytest.param("pods", ended(1), {"count/pods": "1"}, id="a pod whose grace is over"),
        pytest.param("pods", ended(0), {"count/pods": "1", "pods": "1"}, id="a pod that still has grace"),
        pytest.param(
            "services",
            service(type="NodePort"),
            {"count/services": "1", "services": "1", "services.nodeports": "2"},
            id="node ports",
        ),
        pytest.param(
            "services",
            service(type="LoadBalancer", allocateLoadBalancerNodePorts=False),
            {"count/services": "1", "services": "1", "services.loadbalancers": "1", "services.nodeports": "1"},
            id="a load balancer that needs no node ports",
        ),
        pytest.param(
            "persistentvolumeclaims",
            {"metadata": {}, "spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "1Gi"}}}},
            {
                "count/persistentvolumeclaims": "1",
                "gold.storageclass.storage.k8s.io/persistentvolumeclaims": "1",
                "gold.storageclass.storage.k8s.io/requests.storage": "1Gi",
                "persistentvolumeclaims": "1",
                "requests.storage": "1Gi",
            },
            id="a claim",
        ),
        pytest.param("secrets", {}, {"count/secrets": "1", "secrets": "1"}, id="an old name"),
        pytest.param("widgets.example.com", {}, {"count/widgets.example.com": "1"}, id="a custom resource"),
    ],
)
def test_usage(resource: str, obj: Any, want: dict[str, str]) -> None:
    used = usage(resource, obj, NOW)
    assert shown(used) == want
    assert {resource_of(name) for name in used} == {resource}


def scoped(*scopes: str, **expression: Any) -> Any:
    selector = {"matchExpressions": [expression]} if expression else {}
    return {"spec": {"scopes": list(scopes), "scopeSelector": selector}}


CLASS = {"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}
AFFINITY = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"namespaces": ["x"]}]}}


@pytest.mark.parametrize(
    ("quota", "resource", "obj", "selected"),
    [
        pytest.param(scoped(), "secrets", {}, True, id="without scopes everything"),
        pytest.param(scoped("BestEffort"), "secrets", {}, False, id="a scope has no secrets"),
        pytest.param(scoped("Terminating"), "pods", pod(activeDeadlineSeconds=5), True, id="Terminating"),
        pytest.param(scoped("NotTerminating"), "pods", pod(activeDeadlineSeconds=5), False, id="NotTerminating"),
        pytest.param(scoped("BestEffort"), "pods", pod(), True, id="BestEffort"),
        pytest.param(scoped("NotBestEffort"), "pods", pod({"cpu": "1"}), True, id="NotBestEffort"),
        pytest.param(scoped("BestEffort", "Terminating"), "pods", pod(), False, id="all scopes at once"),
        pytest.param(scoped(**CLASS), "pods", pod(priorityClassName="high"), True, id="a priority class"),
        pytest.param(scoped(**CLASS), "pods", pod(priorityClassName="low"), False, id="another priority class"),
        pytest.param(
            scoped("CrossNamespacePodAffinity"),
            "pods",
            pod(affinity=AFFINITY),
            True,
            id="affinity to another namespace",
        ),
        pytest.param(scoped("CrossNamespacePodAffinity"), "pods", pod(), False, id="no affinity"),
    ],
)
def test_scopes(quota: Any, resource: str, obj: Any, selected: bool) -> None:
    assert matches(quota, resource, obj) is selected


def test_what_containers_must_name() -> None:
    two = pod({"cpu": "1"})
    two["spec"]["containers"].append({"name": "a"})
    hard = ["cpu", "limits.memory", "pods", "requests.cpu"]
    assert missing(two, hard) == "cpu for: a; limits.memory for: a,c; requests.cpu for: a"
    assert missing(pod({"cpu": "1"}, {"memory": "1Gi"}), hard) == ""
