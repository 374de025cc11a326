"""Mirrors hand-written Endpoints of Services without a selector into EndpointSlices
(https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/#endpointslice-mirroring).
"""

from __future__ import annotations

import ipaddress
import json
from typing import TYPE_CHECKING

from kubewire.components.controllers.controller import Context, KeyedController
from kubewire.components.controllers.endpointslice.addresses import family
from kubewire.components.controllers.endpointslice.controller import (
    MANAGED_BY,
    SERVICE_NAME,
    generate_name,
    service_values,
)
from kubewire.components.controllers.endpointslice.desired import Group, endpoint_key, ports_key
from kubewire.components.controllers.endpointslice.reconcile import TRIGGER_TIME, Shape, plan_slices
from kubewire.components.controllers.meta import (
    Key,
    annotations_of,
    controller_reference,
    labels_of,
)
from kubewire.components.kubeapi.resources import ENDPOINTS, ENDPOINTSLICES, SERVICES

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import (
        CoreV1EndpointPort,
        DiscoveryV1EndpointPort,
        Endpoint,
        EndpointAddress,
        Endpoints,
        EndpointSlice,
        Service,
    )

MIRRORED = "endpointslicemirroring-controller.k8s.io"
SKIP_MIRROR = "endpointslice.kubernetes.io/skip-mirror"
_LEADER = "control-plane.alpha.kubernetes.io/leader"
_NOT_COPIED = (TRIGGER_TIME, "kubectl.kubernetes.io/last-applied-configuration")
_MAX_PER_SUBSET = 1000


def is_mirrored(endpoints: Endpoints, service: Service | None) -> bool:
    """Whether slices should exist for these Endpoints."""
    if service is None or service["spec"].get("selector"):
        return False
    if service["spec"].get("type") == "ExternalName":
        return False
    if labels_of(endpoints).get(SKIP_MIRROR) == "true":
        return False
    return _LEADER not in annotations_of(endpoints)


def mirrored_groups(endpoints: Endpoints) -> list[Group]:
    """Returns a group for each address type and list of ports of the subsets.

    At most 1000 addresses of each subset are mirrored.
    """
    groups: dict[tuple[str, str], tuple[list[DiscoveryV1EndpointPort], dict[str, Endpoint]]] = {}
    for subset in endpoints.get("subsets") or []:
        ports = [_port(item) for item in subset.get("ports") or []]
        addresses = [(item, True) for item in subset.get("addresses") or []]
        addresses += [(item, False) for item in subset.get("notReadyAddresses") or []]
        for address, ready in addresses[:_MAX_PER_SUBSET]:
            if not _is_valid(address["ip"]):
                continue
            key = (family(address["ip"]), ports_key(ports))
            endpoint = _endpoint(address, ready)
            groups.setdefault(key, (ports, {}))[1][endpoint_key(endpoint)] = endpoint
    return [
        Group(kind, tuple(ports), tuple(members[name] for name in sorted(members)))
        for (kind, _), (ports, members) in sorted(groups.items())
    ]


def _is_valid(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True


def _port(port: CoreV1EndpointPort) -> DiscoveryV1EndpointPort:
    mirrored: DiscoveryV1EndpointPort = {
        "name": port.get("name") or "",
        "port": port["port"],
        "protocol": port.get("protocol", "TCP"),
    }
    if port.get("appProtocol"):
        mirrored["appProtocol"] = port["appProtocol"]
    return mirrored


def _endpoint(address: EndpointAddress, ready: bool) -> Endpoint:
    endpoint: Endpoint = {"addresses": [address["ip"]], "conditions": {"ready": ready}}
    if address.get("hostname"):
        endpoint["hostname"] = address["hostname"]
    if address.get("nodeName"):
        endpoint["nodeName"] = address["nodeName"]
    if address.get("targetRef"):
        endpoint["targetRef"] = address["targetRef"]
    return endpoint


def shape_of(endpoints: Endpoints) -> Shape:
    metadata = endpoints["metadata"]
    annotations = annotations_of(endpoints)
    labels = {key: value for key, value in labels_of(endpoints).items() if key != SKIP_MIRROR}
    return Shape(
        metadata["namespace"],
        generate_name(metadata["name"]),
        labels | {SERVICE_NAME: metadata["name"], MANAGED_BY: MIRRORED},
        {key: value for key, value in annotations.items() if key not in _NOT_COPIED},
        controller_reference(endpoints),
        _MAX_PER_SUBSET,
        annotations.get(TRIGGER_TIME),
    )


class EndpointSliceMirroringController(KeyedController):
    component = "endpoint-slice-mirroring-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.services = self.follow(SERVICES, self._enqueue_on_service_change)
        self.endpoints = self.follow(ENDPOINTS, self.enqueue)
        self.slices_by_service = self.informers.index(ENDPOINTSLICES, service_values)
        self.follow(ENDPOINTSLICES, self._enqueue_service)

    def _enqueue_on_service_change(self, old: Service | None, new: Service | None) -> None:
        if old is None or new is None or _selector(old) != _selector(new):
            self.enqueue(old, new)

    def _enqueue_service(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        for item in (old, new):
            if item is not None and labels_of(item).get(MANAGED_BY) == MIRRORED:
                self.queue.add(
                    (item["metadata"]["namespace"], labels_of(item).get(SERVICE_NAME, "")),
                )

    async def sync(self, key: Key) -> None:
        slices = self.slices_by_service.get("/".join(key))
        existing = [item for item in slices if labels_of(item).get(MANAGED_BY) == MIRRORED]
        endpoints = self.endpoints.store.get(key)
        if endpoints is None or not is_mirrored(endpoints, self.services.store.get(key)):
            nothing = Shape(key[0], "", {}, {}, None)
            await self.apply(key, plan_slices(nothing, existing, [], []))
            return
        groups = mirrored_groups(endpoints)
        await self.apply(key, plan_slices(shape_of(endpoints), existing, groups, []))


def _selector(service: Service) -> str:
    return json.dumps(service["spec"].get("selector") or {}, sort_keys=True)
