"""Kubernetes objects for tests, as an API server would hand them out (defaults filled in)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def stamp(when: datetime = NOW) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def template(image: str = "nginx:1", labels: dict[str, str] | None = None, **spec: Any) -> Any:
    return {
        "metadata": {"labels": labels or {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": image}], **spec},
    }


def workload(kind: str, name: str = "web", replicas: int | None = 3, **spec: Any) -> Any:
    """A Deployment, ReplicaSet, StatefulSet or DaemonSet that selects app=web."""
    body: Any = {"selector": {"matchLabels": {"app": "web"}}, "template": template(), **spec}
    if replicas is not None:
        body["replicas"] = replicas
    metadata = {
        "name": name,
        "namespace": "default",
        "uid": f"uid-{name}",
        "generation": 1,
        "resourceVersion": "1",
        "creationTimestamp": stamp(),
    }
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": body, "status": {}}


def owned_by(owner: Any) -> Any:
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def pod(name: str, **given: Any) -> Any:
    """ip, node, ready, phase, labels, owner, deleting, created, ready_since, restarts, cost, spec."""
    since = stamp(given.get("ready_since", NOW))
    ready = given.get("ready", True)
    metadata: Any = {
        "name": name,
        "namespace": "default",
        "uid": f"uid-{name}",
        "resourceVersion": "1",
        "labels": given.get("labels", {"app": "web"}),
        "creationTimestamp": stamp(given.get("created", NOW)),
    }
    if "owner" in given:
        metadata["ownerReferences"] = [owned_by(given["owner"])]
    if given.get("deleting"):
        metadata["deletionTimestamp"] = stamp()
    if "cost" in given:
        metadata["annotations"] = {"controller.kubernetes.io/pod-deletion-cost": given["cost"]}
    spec = {"containers": [{"name": "c", "image": "nginx:1"}], **given.get("spec", {})}
    if given.get("node", "node-1"):
        spec["nodeName"] = given.get("node", "node-1")
    status: Any = {
        "phase": given.get("phase", "Running"),
        "conditions": [{"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": since}],
        "containerStatuses": [{"name": "c", "restartCount": given.get("restarts", 0)}],
    }
    if given.get("ip"):
        addresses = given["ip"] if isinstance(given["ip"], list) else [given["ip"]]
        status |= {"podIP": addresses[0], "podIPs": [{"ip": address} for address in addresses]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}


def node(name: str, *, taints: Any = (), labels: dict[str, str] | None = None, **given: Any) -> Any:
    allocatable = {"cpu": "4", "memory": "8Gi", "pods": "110", **given.get("allocatable", {})}
    conditions = [{"type": "Ready", "status": given.get("ready", "True"), "lastTransitionTime": stamp()}]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "uid": f"uid-{name}",
            "resourceVersion": "1",
            "creationTimestamp": stamp(),
            "labels": {"kubernetes.io/hostname": name, **(labels or {})},
        },
        "spec": {"taints": list(taints)} if taints else {},
        "status": {"allocatable": allocatable, "conditions": conditions},
    }


def service(name: str = "web", **spec: Any) -> Any:
    body = {
        "selector": {"app": "web"},
        "clusterIP": "10.96.0.7",
        "ipFamilies": ["IPv4"],
        "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
        **spec,
    }
    metadata = {"name": name, "namespace": "default", "uid": f"uid-{name}", "labels": {"team": "a"}}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata | {"creationTimestamp": stamp()},
        "spec": body,
    }
