"""Plans the Endpoints object of a Service, as a function of the Service and its pods."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kubewire.components.controllers.actions import Action, Create, Update
from kubewire.components.controllers.endpointslice import addresses
from kubewire.components.controllers.endpointslice.reconcile import TRIGGER_TIME
from kubewire.components.controllers.meta import annotations_of, labels_of
from kubewire.components.controllers.pods import is_ready
from kubewire.components.kubeapi.resources import ENDPOINTS

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import (
        CoreV1EndpointPort,
        DiscoveryV1EndpointPort,
        EndpointAddress,
        Endpoints,
        EndpointSubset,
        ObjectMeta,
        Pod,
        Service,
    )

OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"
MANAGED_BY = "endpoints.kubernetes.io/managed-by"
MANAGER = "endpoint-controller"
HEADLESS = "service.kubernetes.io/headless"
MAX_ADDRESSES = 1000

_Addresses = list["EndpointAddress"]
_Group = tuple[list["CoreV1EndpointPort"], _Addresses, _Addresses]


def subsets(service: Service, pods: Sequence[Pod]) -> tuple[list[EndpointSubset], bool]:
    """Returns (subsets, truncated): sorted addresses grouped by their ports (RepackSubsets).

    At most 1000 addresses are kept in all.
    """
    groups: dict[str, _Group] = {}
    publish = bool(service["spec"].get("publishNotReadyAddresses"))
    primary = addresses.address_types(service)[0]
    for pod in pods:
        if not addresses.is_candidate(pod, include_terminating=publish):
            continue
        ips = addresses.pod_addresses(pod)
        primary_addresses = [ip for ip in ips if addresses.family(ip) == primary]
        ports = addresses.endpoint_ports(service, pod)
        if not primary_addresses or (service["spec"].get("ports") and not ports):
            continue
        key = json.dumps(sorted(json.dumps(port, sort_keys=True) for port in ports))
        _, ready, unready = groups.setdefault(key, ([_port(port) for port in ports], [], []))
        members = ready if publish or is_ready(pod) else unready
        members.append(_address(service, pod, primary_addresses[0]))
    return _truncated([groups[key] for key in sorted(groups)])


def _port(port: DiscoveryV1EndpointPort) -> CoreV1EndpointPort:
    return {**port, "port": port["port"]}


def _address(service: Service, pod: Pod, address: str) -> EndpointAddress:
    metadata = pod["metadata"]
    entry: EndpointAddress = {
        "ip": address,
        "targetRef": {
            "kind": "Pod",
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
        },
    }
    if pod["spec"].get("nodeName"):
        entry["nodeName"] = pod["spec"]["nodeName"]
    if addresses.has_hostname(service, pod):
        entry["hostname"] = pod["spec"]["hostname"]
    return entry


def _truncated(groups: Sequence[_Group]) -> tuple[list[EndpointSubset], bool]:
    """Keeps ready addresses first, then unready ones, in proportion to what each subset has."""
    total_ready = sum(len(ready) for _, ready, _ in groups)
    total = total_ready + sum(len(unready) for _, _, unready in groups)
    room = MAX_ADDRESSES
    made: list[EndpointSubset] = []
    for ports, ready, unready in groups:
        by_ip = sorted(ready, key=_address_key), sorted(unready, key=_address_key)
        if total > MAX_ADDRESSES:
            by_ip = _share(by_ip, total_ready, total - total_ready)
        kept_ready = by_ip[0][:room]
        room -= len(kept_ready)
        kept_unready = by_ip[1][:room]
        room -= len(kept_unready)
        subset: EndpointSubset = {}
        if kept_ready:
            subset["addresses"] = kept_ready
        if kept_unready:
            subset["notReadyAddresses"] = kept_unready
        if ports:
            subset["ports"] = sorted(
                ports,
                key=lambda port: (port["port"], port["name"], port["protocol"]),
            )
        if kept_ready or kept_unready:
            made.append(subset)
    return made, total > MAX_ADDRESSES


def _share(
    members: tuple[_Addresses, _Addresses], ready: int, unready: int
) -> tuple[_Addresses, _Addresses]:
    def part(items: _Addresses, whole: int, room: int) -> _Addresses:
        return items if whole <= room else items[: -(-len(items) * room // whole)]

    left = max(MAX_ADDRESSES - ready, 0)
    return part(members[0], ready, MAX_ADDRESSES), part(members[1], unready, left)


def _address_key(address: EndpointAddress) -> tuple[str, str]:
    return address["ip"], address["targetRef"]["uid"]


def plan(
    service: Service,
    pods: Sequence[Pod],
    existing: Endpoints | None,
    trigger_time: str | None,
) -> tuple[Action, ...]:
    """Creates or updates the object; returns no action when it is already correct."""
    wanted, truncated = subsets(service, pods)
    labels = {key: value for key, value in labels_of(service).items() if key != HEADLESS}
    labels[MANAGED_BY] = MANAGER
    if addresses.is_headless(service):
        labels[HEADLESS] = ""
    annotations = {
        key: value
        for key, value in annotations_of(existing or {"metadata": {}}).items()
        if key not in (TRIGGER_TIME, OVER_CAPACITY)
    }
    if truncated:
        annotations[OVER_CAPACITY] = "truncated"
    if existing is not None and _same(existing, wanted, labels, truncated):
        return ()
    if trigger_time:
        annotations[TRIGGER_TIME] = trigger_time
    metadata = existing["metadata"] if existing else _named(service)
    endpoints: Endpoints = {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {**metadata, "labels": labels, "annotations": annotations},
        "subsets": wanted,
    }
    return (Create(ENDPOINTS, endpoints),) if existing is None else (Update(ENDPOINTS, endpoints),)


def _named(service: Service) -> ObjectMeta:
    return {"name": service["metadata"]["name"], "namespace": service["metadata"]["namespace"]}


def _same(
    existing: Endpoints,
    wanted: list[EndpointSubset],
    labels: dict[str, str],
    truncated: bool,
) -> bool:
    marked = annotations_of(existing).get(OVER_CAPACITY) == "truncated"
    same_subsets = (existing.get("subsets") or []) == wanted
    return same_subsets and labels_of(existing) == labels and marked == truncated
