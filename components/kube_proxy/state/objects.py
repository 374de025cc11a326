"""API objects -> model. Pure; what kube-proxy leaves alone (headless, ExternalName) yields
nothing."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from kubewire.components.kube_proxy.state.model import (
    IPV4,
    IPV6,
    Endpoint,
    Node,
    ServicePort,
    ServicePortName,
)
from kubewire.components.kubeapi.fields import only

if TYPE_CHECKING:
    from kubewire.components.kubeapi import types

_Object = TypeVar("_Object", bound="types.PartialObjectMetadata")
SERVICE_NAME_LABEL = "kubernetes.io/service-name"
#: Since when what the slice says has been true (the endpoints controllers write it).
TRIGGER_TIME = "endpoints.kubernetes.io/last-change-trigger-time"
ZONE_LABEL = "topology.kubernetes.io/zone"
#: Headless Services and those of another proxy are not ours (upstream's informer selector).
LABEL_SELECTOR = "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name"
_DEFAULT_STICKY_SECONDS = 10800


def family_of(address: str) -> str:
    return IPV6 if ":" in address else IPV4


_SERVICE_SPEC = frozenset(
    "type clusterIP clusterIPs ports externalIPs loadBalancerSourceRanges sessionAffinity sessionAffinityConfig "
    "internalTrafficPolicy externalTrafficPolicy healthCheckNodePort".split()
)
_ENDPOINT = frozenset(("addresses", "conditions", "nodeName", "hints"))
_METADATA = frozenset(
    ("name", "namespace", "uid", "resourceVersion", "labels", "deletionTimestamp")
)


def trim_service(service: types.Service) -> types.Service:
    """As trim(), and of its spec what service_ports() reads."""
    trimmed = trim(service)
    trimmed["spec"] = only(_SERVICE_SPEC, service["spec"])
    return trimmed


def trim_slice(endpoint_slice: types.EndpointSlice) -> types.EndpointSlice:
    """As trim(), and of its endpoints what slice_endpoints() reads: not the pod behind each."""
    trimmed = trim(endpoint_slice)
    trimmed["endpoints"] = [
        only(_ENDPOINT, endpoint) for endpoint in endpoint_slice.get("endpoints") or ()
    ]
    return trimmed


def trim(obj: _Object) -> _Object:
    """What we need of an object; managedFields and annotations are most of its weight."""
    metadata = obj["metadata"]
    kept = only(_METADATA, metadata)
    if (since := (metadata.get("annotations") or {}).get(TRIGGER_TIME)) is not None:
        kept["annotations"] = {TRIGGER_TIME: since}
    trimmed = obj.copy()
    trimmed["metadata"] = kept
    return trimmed


def service_ports(service: types.Service, family: str) -> dict[ServicePortName, ServicePort]:
    """The ports of a Service that has a cluster IP of this family."""
    spec, metadata = service["spec"], service["metadata"]
    cluster_ip = _cluster_ip(spec, family)
    if not cluster_ip or spec.get("type") == "ExternalName":
        return {}
    common = _common(spec, service.get("status") or {}, family) | {"cluster_ip": cluster_ip}
    return {
        ServicePortName(
            metadata["namespace"],
            metadata["name"],
            port.get("name") or "",
            port.get("protocol") or "TCP",
        ): ServicePort(
            port=port["port"],
            protocol=(port.get("protocol") or "TCP").lower(),
            node_port=port.get("nodePort") or 0,
            **common,
        )
        for port in spec.get("ports") or ()
    }


def _cluster_ip(spec: types.ServiceSpec, family: str) -> str:
    addresses = spec.get("clusterIPs") or [spec.get("clusterIP") or ""]
    return next((ip for ip in addresses if ip and ip != "None" and family_of(ip) == family), "")


def _common(spec: types.ServiceSpec, status: types.ServiceStatus, family: str) -> dict[str, Any]:
    ingress = (status.get("loadBalancer") or {}).get("ingress") or ()
    # ipMode Proxy: the balancer delivers to node ports or pods itself, so its address is not ours
    # (KEP-1860).
    vips = [item["ip"] for item in ingress if item.get("ip") and item.get("ipMode", "VIP") == "VIP"]
    affinity = spec.get("sessionAffinity") == "ClientIP"
    client_ip = (spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}
    external = spec.get("type") in ("NodePort", "LoadBalancer") or bool(spec.get("externalIPs"))
    return {
        "external_ips": _of_family(spec.get("externalIPs"), family),
        "load_balancer_ips": _of_family(vips, family),
        "load_balancer_source_ranges": _of_family(spec.get("loadBalancerSourceRanges"), family),
        "sticky_seconds": (client_ip.get("timeoutSeconds") or _DEFAULT_STICKY_SECONDS)
        if affinity
        else 0,
        "internal_local": spec.get("internalTrafficPolicy") == "Local",
        "external_local": external and spec.get("externalTrafficPolicy") == "Local",
        "health_check_node_port": spec.get("healthCheckNodePort") or 0,
    }


def _of_family(values: Iterable[str] | None, family: str) -> tuple[str, ...]:
    return tuple(sorted({value.strip() for value in values or () if family_of(value) == family}))


def slice_endpoints(
    endpoint_slice: types.EndpointSlice,
) -> dict[tuple[str, str], tuple[Endpoint, ...]]:
    """(port name, protocol) -> endpoints of one EndpointSlice."""
    chosen = [
        _conditions(endpoint)
        for endpoint in endpoint_slice.get("endpoints") or ()
        if endpoint.get("addresses")
    ]
    return {
        (port.get("name") or "", port.get("protocol") or "TCP"): tuple(
            Endpoint(ip=ip, port=port["port"], **rest) for ip, rest in chosen
        )
        for port in endpoint_slice.get("ports") or ()
        if port.get("port")
    }


def _conditions(endpoint: types.Endpoint) -> tuple[str, dict[str, Any]]:
    """Absent conditions: ready and serving count as true, terminating as false
    (EndpointConditions)."""
    conditions, hints = endpoint.get("conditions") or {}, endpoint.get("hints") or {}
    ready = conditions.get("ready") is not False
    serving = conditions.get("serving")
    return endpoint["addresses"][0], {
        "node_name": endpoint.get("nodeName") or "",
        "ready": ready,
        "serving": ready if serving is None else serving,
        "terminating": bool(conditions.get("terminating")),
        "zone_hints": frozenset(hint["name"] for hint in hints.get("forZones") or ()),
        "node_hints": frozenset(hint["name"] for hint in hints.get("forNodes") or ()),
    }


def node_from(name: str, obj: types.Node | None) -> Node:
    """Our Node object; before it exists only its name is known."""
    if obj is None:
        return Node(name)
    addresses = (obj.get("status") or {}).get("addresses") or ()
    ips = [
        item["address"]
        for wanted in ("InternalIP", "ExternalIP")
        for item in addresses
        if item["type"] == wanted
    ]
    per_family = {family_of(ip): ip for ip in reversed(ips)}
    spec = obj.get("spec") or {}
    cidrs = spec.get("podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else [])
    zone = (obj["metadata"].get("labels") or {}).get(ZONE_LABEL, "")
    return Node(
        name, tuple(ip for ip in ips if per_family[family_of(ip)] == ip), zone, tuple(cidrs)
    )


def in_range(address: str, cidr: str) -> bool:
    network = ipaddress.ip_network(cidr, strict=False)
    parsed = ipaddress.ip_address(address)
    return parsed.version == network.version and parsed in network
