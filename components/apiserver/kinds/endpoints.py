"""Endpoints (core/v1, superseded by EndpointSlice): k8s.io/kubernetes/pkg/registry/core/endpoint."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from components.apiserver.kinds import cells
from components.apiserver.kinds.spec import Column, KindSpec
from components.machinery.resources import ENDPOINTS, KubeObject

_MOST = 3


def default(obj: KubeObject) -> None:
    for subset in obj.get("subsets") or ():
        for port in subset.get("ports") or ():
            if not port.get("protocol"):
                port["protocol"] = "TCP"


def row(obj: KubeObject, now: datetime) -> list[Any]:
    return [cells.name(obj), _endpoints(obj), cells.age(obj, now)]


def _endpoints(obj: KubeObject) -> str:
    """`10.0.0.1:80,10.0.0.2:80`: ready addresses times ports, the first three and how many more."""
    if not obj.get("subsets"):
        return cells.NONE
    found = []
    for subset in obj["subsets"]:
        addresses = [address.get("ip", "") for address in subset.get("addresses") or ()]
        ports = subset.get("ports") or ()
        if not ports:
            found += addresses
        found += [_join(address, port.get("port", 0)) for port in ports for address in addresses]
    more = f" + {len(found) - _MOST} more..." if len(found) > _MOST else ""
    return ",".join(found[:_MOST]) + more


def _join(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


KIND = KindSpec(
    resource=ENDPOINTS,
    singular="endpoints",
    short_names=("ep",),
    default=default,
    columns=(cells.NAME, Column("Endpoints", "string", "", "The ready addresses, with their ports."), cells.AGE),
    row=row,
)
