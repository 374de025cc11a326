"""EndpointSlice (discovery.k8s.io/v1): k8s.io/kubernetes/pkg/registry/discovery/endpointslice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from components.apiserver.kinds import cells
from components.apiserver.kinds.spec import Column, KindSpec
from components.machinery.resources import ENDPOINTSLICES, KubeObject

_MOST = 3

COLUMNS = (
    cells.NAME,
    Column("AddressType", "string", "", "What the addresses are: IPv4, IPv6 or FQDN."),
    Column("Ports", "string", "", "The ports all endpoints of this slice listen on."),
    Column("Endpoints", "string", "", "The first addresses of this slice."),
    cells.AGE,
)


def default(obj: KubeObject) -> None:
    for port in obj.get("ports") or ():
        port.setdefault("name", "")
        if not port.get("protocol"):
            port["protocol"] = "TCP"


def row(obj: KubeObject, now: datetime) -> list[Any]:
    return [cells.name(obj), obj.get("addressType", ""), _ports(obj), _addresses(obj), cells.age(obj, now)]


def _ports(obj: KubeObject) -> str:
    return _some([_port(port) for port in obj.get("ports") or ()])


def _port(port: Mapping[str, Any]) -> str:
    return str(port["port"]) if port.get("port") is not None else port.get("name", "*")


def _addresses(obj: KubeObject) -> str:
    return _some([address for one in obj.get("endpoints") or () for address in one.get("addresses") or ()])


def _some(items: Sequence[str]) -> str:
    """The first three, and how many more there are."""
    more = f" + {len(items) - _MOST} more..." if len(items) > _MOST else ""
    return ",".join(items[:_MOST]) + more or cells.UNSET


KIND = KindSpec(
    resource=ENDPOINTSLICES,
    singular="endpointslice",
    default=default,
    columns=COLUMNS,
    row=row,
)
