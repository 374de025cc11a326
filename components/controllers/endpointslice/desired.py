"""The endpoints a Service should have: a function of the Service, its pods and their nodes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kubewire.components.controllers.endpointslice import addresses
from kubewire.components.controllers.meta import is_deleting, labels_of
from kubewire.components.controllers.pods import is_ready
from kubewire.components.kubeapi.resources import KubeObject

ZONE = "topology.kubernetes.io/zone"


@dataclass(frozen=True)
class Group:
    """Endpoints that share one list of ports: they share slices. Pods resolve named ports differently."""

    address_type: str
    ports: tuple[KubeObject, ...]
    endpoints: tuple[KubeObject, ...]

    @property
    def key(self) -> tuple[str, str]:
        return self.address_type, ports_key(self.ports)


def ports_key(ports: Sequence[KubeObject] | None) -> str:
    """Equal for equal port lists in any order; defaults written out or left out make no difference."""
    full = ({"name": "", "protocol": "TCP", **port} for port in ports or [])
    return json.dumps(sorted(json.dumps(port, sort_keys=True) for port in full))


def desired_groups(
    service: KubeObject, pods: Sequence[KubeObject], nodes: Mapping[str, KubeObject], *, hints: bool = True
) -> list[Group]:
    """One group per address type and port list. A pod on a node that does not exist is left out,
    unless publishNotReadyAddresses asks for everything. hints: by spec.trafficDistribution."""
    found: dict[tuple[str, str], tuple[list[KubeObject], dict[str, KubeObject]]] = {}
    publish = bool(service["spec"].get("publishNotReadyAddresses"))
    for pod in pods:
        if not addresses.is_candidate(pod, include_terminating=True):
            continue
        node = nodes.get(pod["spec"].get("nodeName") or "")
        if node is None and not publish:
            continue
        ports = addresses.endpoint_ports(service, pod)
        for address_type in addresses.address_types(service):
            ours = [item for item in addresses.pod_addresses(pod) if addresses.family(item) == address_type]
            if not ours:
                continue
            _, endpoints = found.setdefault((address_type, ports_key(ports)), (ports, {}))
            endpoint = new_endpoint(service, pod, node, ours[0], hints=hints)
            endpoints[endpoint_key(endpoint)] = endpoint
    return [
        Group(address_type, tuple(ports), tuple(endpoints[name] for name in sorted(endpoints)))
        for (address_type, _), (ports, endpoints) in sorted(found.items())
    ]


def endpoint_key(endpoint: KubeObject) -> str:
    """What makes it the same endpoint while its conditions change."""
    parts = (
        sorted(endpoint["addresses"]),
        endpoint.get("hostname"),
        endpoint.get("nodeName"),
        (endpoint.get("targetRef") or {}).get("uid"),
        (endpoint.get("targetRef") or {}).get("name"),
    )
    return json.dumps(parts)


def new_endpoint(
    service: KubeObject, pod: KubeObject, node: KubeObject | None, address: str, *, hints: bool = True
) -> KubeObject:
    """serving: the pod is ready; terminating: it is being deleted; ready: serving and not terminating,
    or publishNotReadyAddresses."""
    metadata = pod["metadata"]
    serving, terminating = is_ready(pod), is_deleting(pod)
    publish = bool(service["spec"].get("publishNotReadyAddresses"))
    endpoint: KubeObject = {
        "addresses": [address],
        "conditions": {
            "ready": publish or (serving and not terminating),
            "serving": serving,
            "terminating": terminating,
        },
        "targetRef": {
            "kind": "Pod",
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
        },
    }
    if pod["spec"].get("nodeName"):
        endpoint["nodeName"] = pod["spec"]["nodeName"]
    zone = labels_of(node).get(ZONE) if node else None
    if zone:
        endpoint["zone"] = zone
    if addresses.has_hostname(service, pod):
        endpoint["hostname"] = pod["spec"]["hostname"]
    given = _hints(service, endpoint) if hints else {}
    return endpoint | ({"hints": given} if given else {})


def _hints(service: KubeObject, endpoint: KubeObject) -> KubeObject:
    """spec.trafficDistribution: every ready endpoint is for its own zone (and node) first (KEP-4444, KEP-3015)."""
    preference = service["spec"].get("trafficDistribution")
    if not endpoint["conditions"]["ready"]:
        return {}
    hints: KubeObject = {}
    if preference in ("PreferClose", "PreferSameZone", "PreferSameNode") and endpoint.get("zone"):
        hints["forZones"] = [{"name": endpoint["zone"]}]
    if preference == "PreferSameNode" and endpoint.get("nodeName"):
        hints["forNodes"] = [{"name": endpoint["nodeName"]}]
    return hints
