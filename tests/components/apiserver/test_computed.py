"""metrics.k8s.io and componentstatuses: what is computed when it is asked for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kubewire.components.apiserver import status
from kubewire.components.apiserver.http import requestinfo
from kubewire.components.apiserver.http.computed import Computed, component_status, table_of
from kubewire.components.apiserver.store import Key


class Stored:
    def __init__(self, resource: str, obj: Any) -> None:
        metadata = obj["metadata"]
        self.key = Key(resource, metadata.get("namespace", ""), metadata["name"])
        self.obj = obj


def pod(name: str, node: str, phase: str = "Running", namespace: str = "default") -> Any:
    metadata = {"name": name, "namespace": namespace, "uid": f"uid-{name}", "labels": {"app": name}}
    return {"metadata": metadata, "spec": {"nodeName": node}, "status": {"phase": phase}}


class Cluster:
    """Two nodes, of which worker-2 does not answer, and three pods."""

    store: Any
    asked: list[str]

    def __init__(self) -> None:
        self.store = self
        self.asked = []

    def items(self, resource: str) -> list[Stored]:
        nodes = [{"metadata": {"name": name, "labels": {"host": name}}} for name in ("worker-1", "worker-2")]
        pods = [pod("a", "worker-1"), pod("b", "worker-2"), pod("c", "worker-1", "Succeeded")]
        return [Stored(resource, obj) for obj in {"nodes": nodes, "pods": pods}[resource]]

    async def kubelet_json(self, node: str, path: str) -> Any:
        self.asked.append(node)
        if node == "worker-2":
            raise OSError("no route to host")
        figures = {
            "cpu": {"time": "2026-01-01T00:00:00Z", "usageNanoCores": 1500000},
            "memory": {"workingSetBytes": 3 << 20},
        }
        container = {"name": "c", **figures}
        pods = [{"podRef": {"uid": f"uid-{name}"}, "containers": [container], **figures} for name in ("a", "c")]
        return {"node": figures, "pods": pods}


def ask(path: str, cluster: Any = None, method: str = "GET", **query: str) -> Any:
    cluster = cluster or Cluster()
    info = requestinfo.parse(method, path, query)
    kind = {"nodes": "NodeMetrics", "pods": "PodMetrics"}.get(info.plural, "ComponentStatus")
    return asyncio.run(Computed(cluster, cluster).answer(info, kind, query))


METRICS = "/apis/metrics.k8s.io/v1beta1"
USAGE = {"cpu": "1500000n", "memory": "3072Ki"}


def test_nodes_that_answer_have_metrics() -> None:
    found = ask(f"{METRICS}/nodes")
    assert (found["kind"], [item["metadata"]["name"] for item in found["items"]]) == ("NodeMetricsList", ["worker-1"])
    assert found["items"][0]["usage"] == USAGE
    assert found["items"][0]["window"] == "10s"


def test_running_pods_have_metrics_of_each_container() -> None:
    found = ask(f"{METRICS}/namespaces/default/pods")
    (item,) = found["items"]
    assert item["metadata"]["name"] == "a"
    assert item["containers"] == [{"name": "c", "usage": USAGE}]
    assert ask(f"{METRICS}/namespaces/other/pods")["items"] == []
    assert ask(f"{METRICS}/pods", labelSelector="app=b")["items"] == []


def test_of_one_pod_only_its_node_is_asked() -> None:
    cluster = Cluster()
    assert ask(f"{METRICS}/namespaces/default/pods/a", cluster)["kind"] == "PodMetrics"
    assert cluster.asked == ["worker-1"]


@pytest.mark.parametrize(
    ("path", "method", "code"),
    [
        (f"{METRICS}/namespaces/default/pods/b", "GET", 404),
        (f"{METRICS}/nodes/worker-2", "GET", 404),
        (f"{METRICS}/nodes", "POST", 405),
        (f"{METRICS}/nodes/worker-1/status", "GET", 404),
    ],
    ids=["a pod of a silent node", "a silent node", "only read", "no subresources"],
)
def test_what_there_is_not(path: str, method: str, code: int) -> None:
    with pytest.raises(status.StatusError) as caught:
        ask(path, method=method)
    assert caught.value.code == code


def test_a_component_that_does_not_answer_is_unhealthy() -> None:
    listed = ask("/api/v1/componentstatuses")["items"]
    states = {item["metadata"]["name"]: item["conditions"][0]["status"] for item in listed}
    assert states.keys() == {"scheduler", "controller-manager", "etcd-0"}
    assert states["etcd-0"] == "True"
    broken = component_status("scheduler", "refused")["conditions"]
    assert broken == [{"type": "Healthy", "status": "False", "message": "refused"}]


def test_component_statuses_are_printed_with_status_message_and_error(kubectl: Any) -> None:
    lines = kubectl("get", "componentstatuses").stdout.splitlines()
    assert lines[0].split() == ["NAME", "STATUS", "MESSAGE", "ERROR"]
    cells = {line.split()[0]: line.split()[1:] for line in lines[1:]}
    assert cells["etcd-0"] == ["Healthy", "ok"]
    assert set(cells) == {"etcd-0", "scheduler", "controller-manager"}


@pytest.mark.parametrize(
    ("error", "cells"),
    [("", ["x", "Healthy", "ok", ""]), ("refused", ["x", "Unhealthy", "refused", ""])],
    ids=["healthy", "unhealthy"],
)
def test_the_row_of_a_component(error: str, cells: list[str]) -> None:
    table = table_of(component_status("x", error), "v1", "None")
    assert table["rows"] == [{"cells": cells}]
