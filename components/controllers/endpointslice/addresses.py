"""Decides which pods back a Service, and under which addresses and ports."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kubewire.components.controllers.meta import is_deleting
from kubewire.components.controllers.pods import is_finished

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import (
        ContainerPort,
        DiscoveryV1EndpointPort,
        Pod,
        Service,
        ServicePort,
    )

IPV4 = "IPv4"
IPV6 = "IPv6"


def family(address: str) -> str:
    return IPV6 if ipaddress.ip_address(address).version == 6 else IPV4


def pod_addresses(pod: Pod) -> list[str]:
    """status.podIPs, or status.podIP if only that is set."""
    status = pod.get("status") or {}
    addresses = [item["ip"] for item in status.get("podIPs") or [] if item.get("ip")]
    return addresses or [address for address in [status.get("podIP")] if address]


def is_candidate(pod: Pod, *, include_terminating: bool) -> bool:
    """Whether the pod is not finished and has an address (ShouldPodBeInEndpoints)."""
    if is_finished(pod) or not pod_addresses(pod):
        return False
    return include_terminating or not is_deleting(pod)


def is_headless(service: Service) -> bool:
    return service["spec"].get("clusterIP") in (None, "", "None")


def address_types(service: Service) -> list[str]:
    """spec.ipFamilies, or the ClusterIP's family if an old API server did not set them."""
    families = service["spec"].get("ipFamilies")
    if families:
        return list(families)
    cluster_ip = service["spec"].get("clusterIP")
    return [family(cluster_ip)] if cluster_ip and cluster_ip != "None" else [IPV4]


def _container_ports(pod: Pod) -> Iterator[ContainerPort]:
    spec = pod["spec"]
    init = spec.get("initContainers") or []
    sidecars = [item for item in init if item.get("restartPolicy") == "Always"]
    for container in [*(spec.get("containers") or []), *sidecars]:
        yield from container.get("ports") or []


def find_port(pod: Pod, service_port: ServicePort) -> int | None:
    """Resolves targetPort to a number; a name is looked up in this pod's containers by protocol."""
    target = service_port.get("targetPort") or service_port["port"]
    if isinstance(target, int):
        return target
    protocol = service_port.get("protocol", "TCP")
    for port in _container_ports(pod):
        if port.get("name") == target and port.get("protocol", "TCP") == protocol:
            return int(port["containerPort"])
    return None


def endpoint_ports(service: Service, pod: Pod) -> list[DiscoveryV1EndpointPort]:
    """Returns an EndpointPort for each Service port that this pod has.

    A headless Service may have none.
    """
    ports: list[DiscoveryV1EndpointPort] = []
    for item in service["spec"].get("ports") or []:
        number = find_port(pod, item)
        if number is None:
            continue
        port: DiscoveryV1EndpointPort = {
            "name": item.get("name") or "",
            "port": number,
            "protocol": item.get("protocol", "TCP"),
        }
        if item.get("appProtocol"):
            port["appProtocol"] = item["appProtocol"]
        ports.append(port)
    return ports


def has_hostname(service: Service, pod: Pod) -> bool:
    """Whether hostname and subdomain of the pod ask for a name under this Service."""
    spec = pod["spec"]
    return bool(spec.get("hostname")) and spec.get("subdomain") == service["metadata"]["name"]
