"""Computes the endpoints a Service should have from the Service, its pods and their nodes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubewire.components.controllers.endpointslice import addresses
from kubewire.components.controllers.meta import is_deleting, labels_of
from kubewire.components.controllers.pods import is_ready

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import (
        DiscoveryV1EndpointPort,
        Endpoint,
        EndpointHints,
        Node,
        Pod,
        Service,
    )

ZONE = "topology.kubernetes.io/zone"


@dataclass(frozen=True)
class Group:
    """Endpoints of one address type with the same ports, which may share slices.

    A slice has a single list of ports, and pods may resolve a named port to different numbers.
    """

    address_type: str
    ports: tuple[DiscoveryV1EndpointPort, ...]
    endpoints: tuple[Endpoint, ...]

    @property
    def key(self) -> tuple[str, str]:
        return self.address_type, ports_key(self.ports)


def ports_key(ports: Sequence[DiscoveryV1EndpointPort] | None) -> str:
    """A key that is equal for equal ports, whatever their order and whether defaults are written
    out.
    """
    full = ({"name": "", "protocol": "TCP", **port} for port in ports or [])
    return json.dumps(sorted(json.dumps(port, sort_keys=True) for port in full))


def desired_groups(
    service: Service,
    pods: Sequence[Pod],
    nodes: Mapping[str, Node],
    *,
    hints: bool = True,
) -> list[Group]:
    """Returns a group for each address type and list of ports.

    A pod on a node that does not exist is left out unless publishNotReadyAddresses is set. With
    hints, endpoints get those of spec.trafficDistribution.
    """
    groups: dict[tuple[str, str], tuple[list[DiscoveryV1EndpointPort], dict[str, Endpoint]]] = {}
    publish = bool(service["spec"].get("publishNotReadyAddresses"))
    for pod in pods:
        if not addresses.is_candidate(pod, include_terminating=True):
            continue
        node = nodes.get(pod["spec"].get("nodeName") or "")
        if node is None and not publish:
            continue
        ports = addresses.endpoint_ports(service, pod)
        for address_type in addresses.address_types(service):
            ips = addresses.pod_addresses(pod)
            family_addresses = [ip for ip in ips if addresses.family(ip) == address_type]
            if not family_addresses:
                continue
            _, endpoints = groups.setdefault((address_type, ports_key(ports)), (ports, {}))
            endpoint = new_endpoint(service, pod, node, family_addresses[0], hints=hints)
            endpoints[endpoint_key(endpoint)] = endpoint
    return [
        Group(address_type, tuple(ports), tuple(endpoints[name] for name in sorted(endpoints)))
        for (address_type, _), (ports, endpoints) in sorted(groups.items())
    ]


def endpoint_key(endpoint: Endpoint) -> str:
    """Identifies an endpoint while its conditions change."""
    parts = (
        sorted(endpoint["addresses"]),
        endpoint.get("hostname"),
        endpoint.get("nodeName"),
        (endpoint.get("targetRef") or {}).get("uid"),
        (endpoint.get("targetRef") or {}).get("name"),
    )
    return json.dumps(parts)


def new_endpoint(
    service: Service,
    pod: Pod,
    node: Node | None,
    address: str,
    *,
    hints: bool = True,
) -> Endpoint:
    """Builds the endpoint of a pod.

    serving means that the pod is ready, terminating that it is being deleted. ready means serving
    and not terminating, or always with publishNotReadyAddresses.
    """
    metadata = pod["metadata"]
    serving = is_ready(pod)
    terminating = is_deleting(pod)
    publish = bool(service["spec"].get("publishNotReadyAddresses"))
    endpoint: Endpoint = {
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
    given = _hints(service, endpoint) if hints else None
    if given:
        endpoint["hints"] = given
    return endpoint


def _hints(service: Service, endpoint: Endpoint) -> EndpointHints:
    """The hints of spec.trafficDistribution (KEP-4444, KEP-3015).

    A ready endpoint is recommended to its own zone, and with PreferSameNode to its own node.
    """
    preference = service["spec"].get("trafficDistribution")
    if not endpoint["conditions"]["ready"]:
        return {}
    hints: EndpointHints = {}
    if preference in ("PreferClose", "PreferSameZone", "PreferSameNode") and endpoint.get("zone"):
        hints["forZones"] = [{"name": endpoint["zone"]}]
    if preference == "PreferSameNode" and endpoint.get("nodeName"):
        hints["forNodes"] = [{"name": endpoint["nodeName"]}]
    return hints
