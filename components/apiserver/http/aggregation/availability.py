"""The condition Available of an APIService (kube-aggregator/pkg/controllers/status)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from kubewire.components.kubeapi.resources import KubeObject


@dataclass(frozen=True)
class Available:
    """What the condition says; status is True or False."""

    status: str
    reason: str
    message: str


LOCAL = Available("True", "Local", "Local APIServices are always available")
PASSED = Available("True", "Passed", "all checks passed")


def failed_check(why: str) -> Available:
    return Available("False", "FailedDiscoveryCheck", why)


def of_service(
    reference: KubeObject,
    service: KubeObject | None,
    slices: Iterable[KubeObject],
) -> Available | None:
    """Why a Service cannot serve, from its objects alone; None if its API has to be asked.

    reference is spec.service of the APIService, and slices are the Service's EndpointSlices.
    """
    name, port = reference["name"], reference.get("port") or 443
    place = f'service/{name} in "{reference["namespace"]}"'
    if service is None:
        return Available("False", "ServiceNotFound", f"{place} is not present")
    spec = service.get("spec") or {}
    if (spec.get("type") or "ClusterIP") != "ClusterIP":
        return None
    listening = [item for item in spec.get("ports") or () if item.get("port") == port]
    if not listening:
        return Available("False", "ServicePortError", f"{place} is not listening on port {port}")
    port_name = listening[0].get("name") or ""
    found = list(slices)
    if not found:
        text = f"cannot find endpointslices for {place}"
        return Available("False", "EndpointsNotFound", text)
    if not any(_is_ready(item, port_name) for item in found):
        text = f'endpointslices for {place} have no addresses with port name "{port_name}"'
        return Available("False", "MissingEndpoints", text)
    return None


def _is_ready(endpoint_slice: KubeObject, port_name: str) -> bool:
    endpoints = endpoint_slice.get("endpoints") or ()
    ready = any((item.get("conditions") or {}).get("ready", True) for item in endpoints)
    ports = endpoint_slice.get("ports") or ()
    return ready and any(
        (item.get("name") or "") == port_name and item.get("port") is not None for item in ports
    )


def condition_of(api_service: KubeObject) -> dict[str, Any] | None:
    """The condition Available, if there is one."""
    conditions = (api_service.get("status") or {}).get("conditions") or ()
    return next((item for item in conditions if item.get("type") == "Available"), None)


def is_available(api_service: KubeObject) -> bool:
    condition = condition_of(api_service)
    return condition is not None and condition.get("status") == "True"


def with_condition(api_service: KubeObject, available: Available, now: str) -> KubeObject:
    """The object with its condition; the same object if the condition says that already."""
    before = condition_of(api_service)
    wanted = {
        "type": "Available",
        "status": available.status,
        "reason": available.reason,
        "message": available.message,
    }
    if before is not None and all(before.get(key) == wanted[key] for key in wanted):
        return api_service
    same = before is not None and before.get("status") == available.status
    since = before.get("lastTransitionTime", now) if before is not None and same else now
    status = api_service.get("status") or {}
    others = [item for item in status.get("conditions") or () if item is not before]
    fresh = {**wanted, "lastTransitionTime": since}
    return api_service | {"status": {**status, "conditions": [*others, fresh]}}
