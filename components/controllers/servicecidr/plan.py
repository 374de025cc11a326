"""Plans the next write to a ServiceCIDR (k8s.io/kubernetes/pkg/controller/servicecidrs)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from kubewire.components.controllers.actions import Action, Update
from kubewire.components.controllers.meta import condition, format_time, is_deleting
from kubewire.components.kubeapi.resources import SERVICECIDRS

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import ServiceCIDR

FINALIZER = "networking.k8s.io/service-cidr-finalizer"
_READY = "Kubernetes Service CIDR is ready"
_HINT = "please remove them or create a new ServiceCIDR"
_IN_USE = f"There are still IPAddresses referencing the ServiceCIDR, {_HINT}"

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def plan(
    service_cidr: ServiceCIDR,
    others: Iterable[ServiceCIDR],
    addresses: Iterable[str],
    now: datetime,
) -> tuple[Action, ...]:
    """Returns at most one write; addresses are the names of all IPAddresses."""
    finalizers = service_cidr["metadata"].get("finalizers") or []
    if not is_deleting(service_cidr):
        if FINALIZER not in finalizers:
            return (Update(SERVICECIDRS, _with_finalizers(service_cidr, [*finalizers, FINALIZER])),)
        return _with_ready(service_cidr, "True", "", _READY, now)
    if FINALIZER not in finalizers:
        return ()
    if is_needed(service_cidr, others, addresses):
        return _with_ready(service_cidr, "False", "Terminating", _IN_USE, now)
    left = [item for item in finalizers if item != FINALIZER]
    return (Update(SERVICECIDRS, _with_finalizers(service_cidr, left)),)


def is_needed(
    service_cidr: ServiceCIDR,
    others: Iterable[ServiceCIDR],
    addresses: Iterable[str],
) -> bool:
    """Whether an address in use lies in it that no other ServiceCIDR, not being deleted, covers."""
    own = _networks(service_cidr)
    staying = [other for other in others if not is_deleting(other)]
    standing = [network for other in staying for network in _networks(other)]
    used = (ipaddress.ip_address(name) for name in addresses)
    return any(_covers(own, address) and not _covers(standing, address) for address in used)


def _networks(service_cidr: ServiceCIDR) -> list[_Network]:
    cidrs = service_cidr["spec"].get("cidrs") or ()
    return [ipaddress.ip_network(cidr, strict=False) for cidr in cidrs]


def _covers(
    networks: Sequence[_Network],
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> bool:
    return any(network.version == address.version and address in network for network in networks)


def _with_finalizers(service_cidr: ServiceCIDR, finalizers: list[str]) -> ServiceCIDR:
    return {**service_cidr, "metadata": {**service_cidr["metadata"], "finalizers": finalizers}}


def _with_ready(
    service_cidr: ServiceCIDR,
    value: str,
    reason: str,
    message: str,
    now: datetime,
) -> tuple[Action, ...]:
    standing = condition(service_cidr.get("status"), "Ready")
    if standing is not None and standing.get("status") == value:
        return ()
    before = (service_cidr.get("status") or {}).get("conditions") or ()
    conditions = [item for item in before if item["type"] != "Ready"]
    ready = {
        "type": "Ready",
        "status": value,
        "reason": reason,
        "message": message,
        "lastTransitionTime": format_time(now),
    }
    status = {**(service_cidr.get("status") or {}), "conditions": [*conditions, ready]}
    return (Update(SERVICECIDRS, {**service_cidr, "status": status}, "status"),)
