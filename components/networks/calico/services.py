"""The prefixes of Services that a node announces, as confd's routeGenerator computes them. Pure.

(https://docs.tigera.io/calico/latest/networking/configuring/advertise-service-ips;
confd/pkg/backends/calico/routes.go)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kubewire.components.kubeapi.resources import KubeObject
from kubewire.components.networks.calico.plugin import block

_KEYS = ("serviceClusterIPs", "serviceExternalIPs", "serviceLoadBalancerIPs")
_EXCLUDED = "node.kubernetes.io/exclude-from-external-load-balancers"


def wanted(configuration: Mapping[str, Any]) -> bool:
    """True if the configuration announces any Services."""
    return any(configuration.get(key) for key in _KEYS)


def announced(
    configuration: Mapping[str, Any],
    services: Iterable[KubeObject],
    slices: Iterable[KubeObject],
    node: str,
    labels: Mapping[str, str],
) -> list[str]:
    """The configured ranges, which every node announces, and the single addresses of Services with
    externalTrafficPolicy Local, which only nodes with a ready endpoint announce."""
    if _EXCLUDED in labels:
        return []
    ranges = {key: [entry["cidr"] for entry in configuration.get(key) or []] for key in _KEYS}
    prefixes = {cidr for cidrs in ranges.values() for cidr in cidrs}
    local = _with_endpoints_on(slices, node)
    for service in services:
        metadata = service["metadata"]
        spec = service["spec"]
        if (
            spec.get("externalTrafficPolicy") == "Local"
            and (metadata["namespace"], metadata["name"]) in local
        ):
            prefixes |= {
                f"{address}/{block.bits(address)}"
                for key, address in _addresses(service)
                if any(block.contains(cidr, address) for cidr in ranges[key])
            }
    return sorted(prefixes)


def _addresses(service: KubeObject) -> Iterator[tuple[str, str]]:
    spec = service["spec"]
    for address in spec.get("clusterIPs") or []:
        if address != "None":
            yield "serviceClusterIPs", address
    for address in spec.get("externalIPs") or []:
        yield "serviceExternalIPs", address
    for ingress in (service.get("status", {}).get("loadBalancer") or {}).get("ingress") or []:
        if ingress.get("ip"):
            yield "serviceLoadBalancerIPs", ingress["ip"]


def _with_endpoints_on(slices: Iterable[KubeObject], node: str) -> set[tuple[str, str]]:
    return {
        (
            endpoint_slice["metadata"]["namespace"],
            (endpoint_slice["metadata"].get("labels") or {}).get("kubernetes.io/service-name", ""),
        )
        for endpoint_slice in slices
        for endpoint in endpoint_slice.get("endpoints") or ()
        if endpoint.get("nodeName") == node and endpoint.get("conditions", {}).get("ready", True)
    }
