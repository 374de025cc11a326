"""What a ServiceCIDR needs next (k8s.io/kubernetes/pkg/controller/servicecidrs). Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from datetime import datetime

from kubewire.components.controllers.actions import Action, Update
from kubewire.components.controllers.meta import condition, format_time, is_deleting
from kubewire.components.kubeapi.resources import KubeObject, Resource

SERVICECIDRS = Resource("networking.k8s.io", "v1", "servicecidrs", "ServiceCIDR", namespaced=False)
IPADDRESSES = Resource("networking.k8s.io", "v1", "ipaddresses", "IPAddress", namespaced=False)
FINALIZER = "networking.k8s.io/service-cidr-finalizer"
_READY = "Kubernetes Service CIDR is ready"
_IN_USE = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR"

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def plan(
    service_cidr: KubeObject, others: Iterable[KubeObject], addresses: Iterable[str], now: datetime
) -> tuple[Action, ...]:
    """One write at a time. addresses: the names of all IPAddresses."""
    finalizers = service_cidr["metadata"].get("finalizers") or []
    if not is_deleting(service_cidr):
        if FINALIZER not in finalizers:
            return (Update(SERVICECIDRS, _with_finalizers(service_cidr, [*finalizers, FINALIZER])),)
        return _with_ready(service_cidr, "True", "", _READY, now)
    if FINALIZER not in finalizers:
        return ()
    if is_needed(service_cidr, others, addresses):
        return _with_ready(service_cidr, "False", "Terminating", _IN_USE, now)
    left = [one for one in finalizers if one != FINALIZER]
    return (Update(SERVICECIDRS, _with_finalizers(service_cidr, left)),)


def is_needed(service_cidr: KubeObject, others: Iterable[KubeObject], addresses: Iterable[str]) -> bool:
    """An address in it is in use, and no other ServiceCIDR that stays covers that address."""
    own = _networks(service_cidr)
    standing = [network for other in others if not is_deleting(other) for network in _networks(other)]
    used = (ipaddress.ip_address(name) for name in addresses)
    return any(_covers(own, one) and not _covers(standing, one) for one in used)


def _networks(service_cidr: KubeObject) -> list[_Network]:
    return [ipaddress.ip_network(cidr, strict=False) for cidr in service_cidr["spec"].get("cidrs") or ()]


def _covers(networks: Sequence[_Network], address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return any(network.version == address.version and address in network for network in networks)


def _with_finalizers(service_cidr: KubeObject, finalizers: list[str]) -> KubeObject:
    return {**service_cidr, "metadata": {**service_cidr["metadata"], "finalizers": finalizers}}


def _with_ready(service_cidr: KubeObject, value: str, reason: str, message: str, now: datetime) -> tuple[Action, ...]:
    standing = condition(service_cidr.get("status"), "Ready")
    if standing is not None and standing.get("status") == value:
        return ()
    conditions = [one for one in (service_cidr.get("status") or {}).get("conditions") or () if one["type"] != "Ready"]
    ready = {
        "type": "Ready",
        "status": value,
        "reason": reason,
        "message": message,
        "lastTransitionTime": format_time(now),
    }
    status = {**(service_cidr.get("status") or {}), "conditions": [*conditions, ready]}
    return (Update(SERVICECIDRS, {**service_cidr, "status": status}, "status"),)
