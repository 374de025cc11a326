"""Pods, namespaces and policies for the tests, as the API server would give them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Object = dict[str, Any]
Labels = Mapping[str, str]


def namespace(name: str, labels: Labels | None = None) -> Object:
    metadata = {"name": name, "labels": {"kubernetes.io/metadata.name": name, **(labels or {})}}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def pod(
    name: str,
    where: str = "default",
    *,
    addresses: Sequence[str] = (),
    labels: Labels | None = None,
    ports: Iterable[tuple[str, str, int]] = (),
    node: str = "worker-1",
    phase: str = "Running",
    **spec: Any,
) -> Object:
    """ports: (name, protocol, number)."""
    listed = [{"name": n, "protocol": p, "containerPort": number} for n, p, number in ports]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": where, "labels": dict(labels or {})},
        "spec": {"nodeName": node, "containers": [{"name": "c", "ports": listed}], **spec},
        "status": {"phase": phase, "podIPs": [{"ip": address} for address in addresses]},
    }


def network_policy(name: str, where: str = "default", **spec: Any) -> Object:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": where},
        "spec": {"podSelector": {}, **spec},
    }
