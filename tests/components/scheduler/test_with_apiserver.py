"""The scheduler against the real API server: bindings, events, conditions, second chances."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.components.controllers.cluster import Cluster, fake_node


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    taint = {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}
    with Cluster([fake_node("cp", taints=[taint]), *(fake_node(f"w{n}", cpu="4") for n in range(4))]) as running:
        yield running


def bare_pod(name: str, **spec: Any) -> dict[str, Any]:
    body = {"containers": [{"name": "c", "image": "x"}], **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": body}


def requesting(cpu: str) -> dict[str, Any]:
    return {"containers": [{"name": "c", "image": "x", "resources": {"requests": {"cpu": cpu}}}]}


def events(cluster: Cluster, name: str, reason: str) -> list[str]:
    found = cluster.objects("events", "--field-selector", f"involvedObject.name={name},reason={reason}")
    return [item["message"] for item in found]


def test_an_assigned_pod_has_event_and_condition(cluster):
    cluster.apply(bare_pod("plain"))
    cluster.kubectl("wait", "--for=condition=Ready", "pod/plain", "--timeout=60s")
    pod = json.loads(cluster.kubectl("get", "pod", "plain", "-o", "json"))
    (message,) = cluster.wait(lambda: events(cluster, "plain", "Scheduled"), "event")
    assert message == f"Successfully assigned default/plain to {pod['spec']['nodeName']}"
    scheduled = [item for item in pod["status"]["conditions"] if item["type"] == "PodScheduled"]
    assert scheduled[0]["status"] == "True"


def test_a_pod_that_fits_nowhere_says_why_and_starts_when_a_node_comes(cluster):
    cluster.apply(bare_pod("large", **requesting("6")))
    messages = cluster.wait(lambda: events(cluster, "large", "FailedScheduling"), "event")
    assert messages[0].startswith(
        "0/5 nodes are available: 1 node(s) had untolerated taint(s), "
        "4 Insufficient cpu. no new claims to deallocate, preemption: "
    )

    def condition():
        pod = json.loads(cluster.kubectl("get", "pod", "large", "-o", "json"))
        return [item for item in pod["status"].get("conditions", []) if item["type"] == "PodScheduled"]

    (unscheduled,) = cluster.wait(condition, "condition")
    assert (unscheduled["status"], unscheduled["reason"]) == ("False", "Unschedulable")
    cluster.kubectl("create", "-f", "-", "--validate=false", stdin=json.dumps(fake_node("big", cpu="8")))
    cluster.wait(lambda: events(cluster, "large", "Scheduled"), "scheduling on the new node")
    cluster.kubectl("delete", "node", "big")
    cluster.kubectl("delete", "pod", "large", "--grace-period=0", "--force")


def test_room_made_by_a_deletion_is_used(cluster):
    for number in range(4):
        cluster.apply(bare_pod(f"fill-{number}", **requesting("3500m")))
    cluster.wait(lambda: all(events(cluster, f"fill-{n}", "Scheduled") for n in range(4)), "all nodes full")
    cluster.apply(bare_pod("next", **requesting("3")))
    cluster.wait(lambda: events(cluster, "next", "FailedScheduling"), "no room")
    cluster.kubectl("delete", "pod", "fill-2")
    cluster.kubectl("wait", "--for=condition=Ready", "pod/next", "--timeout=60s")
    cluster.kubectl("delete", "pod", "next", *(f"fill-{n}" for n in (0, 1, 3)))


def test_a_pod_of_another_scheduler_is_left_alone(cluster):
    cluster.apply(bare_pod("other", schedulerName="mine"), bare_pod("marker"))
    cluster.kubectl("wait", "--for=condition=Ready", "pod/marker", "--timeout=60s")
    assert "nodeName" not in json.loads(cluster.kubectl("get", "pod", "other", "-o", "json"))["spec"]
    cluster.kubectl("delete", "pod", "other", "marker")


def test_a_hundred_pods_are_spread_evenly(cluster):
    cluster.kubectl("create", "deployment", "many", "--image=x", "--replicas=100")
    cluster.kubectl("rollout", "status", "deployment/many", "--timeout=30s")
    nodes = Counter(item["spec"]["nodeName"] for item in cluster.objects("pods", "-l", "app=many"))
    assert max(nodes.values()) - min(nodes.values()) <= 2
    assert len(nodes) == 4


def test_it_stops_on_sigterm_and_goes_on_after_a_restart(cluster):
    assert cluster.stop("scheduler") == 0
    cluster.apply(bare_pod("later"))
    cluster.start("scheduler")
    cluster.kubectl("wait", "--for=condition=Ready", "pod/later", "--timeout=60s")


def test_the_example_of_the_readme_runs(cluster):
    output = cluster.run_readme("scheduler")
    (pods,) = (text for line, text in output.items() if "-o wide" in line)
    assert all(f"w{number}" in pods for number in range(4)), "one pod on each worker"
