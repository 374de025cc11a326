"""Service (core/v1): k8s.io/kubernetes/pkg/registry/core/service/strategy.go.

The registry calls service_allocation.ServiceAllocator, which allocates addresses and node ports.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from kubewire.components.apiserver.kinds import cells
from kubewire.components.apiserver.kinds.services.service_defaults import default_service
from kubewire.components.apiserver.kinds.services.service_types import drop_unused_fields
from kubewire.components.apiserver.kinds.services.service_validation import (
    validate_create,
    validate_status_update,
    validate_update,
)
from kubewire.components.apiserver.kinds.spec import CONNECT_VERBS, Column, KindSpec, Subresource
from kubewire.components.apiserver.kinds.strategy import keep_all_but_status, keep_status
from kubewire.components.kubeapi.resources import SERVICES, KubeObject

COLUMNS = (
    cells.NAME,
    Column("Type", "string", "", "How the Service is exposed."),
    Column("Cluster-IP", "string", "", "The Service's virtual address."),
    Column("External-IP", "string", "", "Addresses outside the cluster that lead to the Service."),
    Column("Port(s)", "string", "", "The ports of the Service, with their node ports."),
    cells.AGE,
    Column("Selector", "string", "", "The labels of the pods behind the Service.", 1),
)


def row(service: KubeObject, now: datetime) -> list[Any]:
    spec = service.get("spec") or {}
    return [
        cells.name(service),
        spec.get("type", ""),
        (spec.get("clusterIPs") or [spec.get("clusterIP") or cells.NONE])[0],
        _external(service, spec),
        ",".join(_port(port) for port in spec.get("ports") or ()) or cells.NONE,
        cells.age(service, now),
        cells.labels(spec.get("selector")),
    ]


def _port(port: Mapping[str, Any]) -> str:
    number = str(port.get("port", 0))
    if port.get("nodePort"):
        number += f":{port['nodePort']}"
    return f"{number}/{port.get('protocol', 'TCP')}"


def _external(service: KubeObject, spec: Mapping[str, Any]) -> str:
    addresses = list(spec.get("externalIPs") or ())
    match spec.get("type"):
        case "ClusterIP" | "NodePort":
            return ",".join(addresses) or cells.NONE
        case "LoadBalancer":
            return ",".join(load_balancer(service.get("status")) + addresses) or "<pending>"
        case "ExternalName":
            return str(spec.get("externalName", ""))
    return cells.UNKNOWN


def load_balancer(status: Mapping[str, Any] | None) -> list[str]:
    """The addresses, or else the names, of the load balancer, sorted."""
    ingress = cells.at(status or {}, "loadBalancer", "ingress") or ()
    return sorted({item.get("ip") or item.get("hostname") or "" for item in ingress} - {""})


def prepare_create(service: KubeObject) -> None:
    service["status"] = {"loadBalancer": {}}


def prepare_update(new: KubeObject, old: KubeObject) -> None:
    keep_status(new, old)
    drop_unused_fields(new, old)


def selectable_fields(service: KubeObject) -> dict[str, str]:
    spec = service.get("spec") or {}
    return {"spec.clusterIP": spec.get("clusterIP", ""), "spec.type": spec.get("type", "")}


KIND = KindSpec(
    resource=SERVICES,
    singular="service",
    more_subresources=(Subresource("proxy", "ServiceProxyOptions", CONNECT_VERBS),),
    short_names=("svc",),
    categories=("all",),
    subresources=("status",),
    default=default_service,
    prepare_create=prepare_create,
    prepare_update=prepare_update,
    prepare_status_update=keep_all_but_status,
    validate_create=validate_create,
    validate_update=validate_update,
    validate_status_update=validate_status_update,
    columns=COLUMNS,
    row=row,
    selectable_fields=selectable_fields,
)
