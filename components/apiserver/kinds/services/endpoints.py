"""Endpoints (core/v1, superseded by EndpointSlice):
k8s.io/kubernetes/pkg/registry/core/endpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from kubewire.components.apiserver.kinds import cells, names
from kubewire.components.apiserver.kinds.addresses import (
    validate_legacy_ip,
    validate_non_special_ip,
)
from kubewire.components.apiserver.kinds.fielderrors import by_rule, in_range, one_of, required
from kubewire.components.apiserver.kinds.spec import Column, FieldError, KindSpec
from kubewire.components.kubeapi.resources import ENDPOINTS, KubeObject

_MOST = 3


def default(obj: KubeObject) -> None:
    for subset in obj.get("subsets") or ():
        for port in subset.get("ports") or ():
            if not port.get("protocol"):
                port["protocol"] = "TCP"


def validate_create(obj: KubeObject) -> list[FieldError]:
    errors = []
    for index, subset in enumerate(obj.get("subsets") or ()):
        path = f"subsets[{index}]"
        ports = subset.get("ports") or []
        if not subset.get("addresses") and not subset.get("notReadyAddresses"):
            errors.append(required(path, "must specify `addresses` or `notReadyAddresses`"))
        for key in ("addresses", "notReadyAddresses"):
            for number, address in enumerate(subset.get(key) or ()):
                errors += _address(address, f"{path}.{key}[{number}]")
        for number, port in enumerate(ports):
            errors += _port(port, len(ports) > 1, f"{path}.ports[{number}]")
    return errors


def _address(address: Mapping[str, Any], path: str) -> list[FieldError]:
    errors = validate_legacy_ip(f"{path}.ip", address.get("ip") or "")
    if address.get("hostname"):
        errors += by_rule(names.dns1123_label, f"{path}.hostname", address["hostname"])
    if address.get("nodeName") is not None:
        errors += by_rule(names.dns1123_subdomain, f"{path}.nodeName", address["nodeName"])
    return errors + validate_non_special_ip(f"{path}.ip", address.get("ip") or "")


def _port(port: Mapping[str, Any], needs_name: bool, path: str) -> list[FieldError]:
    name = port.get("name") or ""
    errors = [required(f"{path}.name")] if needs_name and not name else []
    if name:
        errors += by_rule(names.dns1123_label, f"{path}.name", name)
    errors += in_range(f"{path}.port", port.get("port", 0), 1, 65535)
    errors += one_of(f"{path}.protocol", port.get("protocol"), ("SCTP", "TCP", "UDP"))
    if port.get("appProtocol") is not None:
        errors += by_rule(names.qualified_name, f"{path}.appProtocol", port["appProtocol"])
    return errors


def validate_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    return validate_create(new)


def row(obj: KubeObject, now: datetime) -> list[Any]:
    return [cells.name(obj), _endpoints(obj), cells.age(obj, now)]


def _endpoints(obj: KubeObject) -> str:
    """`10.0.0.1:80,10.0.0.2:80`: the first three ready addresses with ports, and how many more
    exist.
    """
    if not obj.get("subsets"):
        return cells.NONE
    endpoints = []
    for subset in obj["subsets"]:
        addresses = [address.get("ip", "") for address in subset.get("addresses") or ()]
        ports = subset.get("ports") or ()
        if not ports:
            endpoints += addresses
        numbers = [port.get("port", 0) for port in ports]
        endpoints += [_join(address, number) for number in numbers for address in addresses]
    more = f" + {len(endpoints) - _MOST} more..." if len(endpoints) > _MOST else ""
    return ",".join(endpoints[:_MOST]) + more


def _join(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


KIND = KindSpec(
    resource=ENDPOINTS,
    singular="endpoints",
    deprecation="v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
    short_names=("ep",),
    default=default,
    validate_create=validate_create,
    validate_update=validate_update,
    columns=(
        cells.NAME,
        Column("Endpoints", "string", "", "The ready addresses, with their ports."),
        cells.AGE,
    ),
    row=row,
)
