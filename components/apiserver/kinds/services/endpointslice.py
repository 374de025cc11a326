"""EndpointSlice (discovery.k8s.io/v1): k8s.io/kubernetes/pkg/registry/discovery/endpointslice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from kubewire.components.apiserver.kinds import cells, names
from kubewire.components.apiserver.kinds.addresses import (
    family,
    validate_ip,
    validate_non_special_ip,
)
from kubewire.components.apiserver.kinds.fielderrors import (
    by_rule,
    duplicate,
    immutable,
    invalid,
    one_of,
    required,
)
from kubewire.components.apiserver.kinds.spec import Column, FieldError, KindSpec
from kubewire.components.kubeapi.resources import ENDPOINTSLICES, KubeObject

_MOST = 3
_MOST_ENDPOINTS = 1000
_MOST_PORTS = 20000
_MOST_ADDRESSES = 100
_MOST_ZONES = 8
_ADDRESS_TYPES = ("FQDN", "IPv4", "IPv6")
_PROTOCOLS = ("SCTP", "TCP", "UDP")

COLUMNS = (
    cells.NAME,
    Column("AddressType", "string", "", "The type of the addresses: IPv4, IPv6 or FQDN."),
    Column("Ports", "string", "", "The ports on which all endpoints of this slice listen."),
    Column("Endpoints", "string", "", "The first addresses of this slice."),
    cells.AGE,
)


def default(obj: KubeObject) -> None:
    for port in obj.get("ports") or ():
        port.setdefault("name", "")
        if not port.get("protocol"):
            port["protocol"] = "TCP"


def validate_create(obj: KubeObject) -> list[FieldError]:
    kind = obj.get("addressType")
    errors = one_of("addressType", kind, _ADDRESS_TYPES)
    endpoints = obj.get("endpoints") or []
    if len(endpoints) > _MOST_ENDPOINTS:
        errors.append(_too_many("endpoints", len(endpoints), _MOST_ENDPOINTS))
    else:
        for index, endpoint in enumerate(endpoints):
            errors += _endpoint(endpoint, kind, f"endpoints[{index}]")
    return errors + _validate_ports(obj.get("ports") or [])


def validate_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    errors = validate_create(new)
    return errors + immutable("addressType", new.get("addressType"), old.get("addressType"))


def _too_many(path: str, count: int, most: int) -> FieldError:
    return FieldError("TooMany", path, count, f"must have at most {most} items")


def _endpoint(endpoint: Mapping[str, Any], kind: str | None, path: str) -> list[FieldError]:
    addresses = endpoint.get("addresses") or []
    errors = []
    if not addresses:
        errors.append(required(f"{path}.addresses", "must contain at least 1 address"))
    elif len(addresses) > _MOST_ADDRESSES:
        errors.append(_too_many(f"{path}.addresses", len(addresses), _MOST_ADDRESSES))
    for index, address in enumerate(addresses):
        errors += _address(address, kind, f"{path}.addresses[{index}]")
    if endpoint.get("nodeName") is not None:
        errors += by_rule(names.dns1123_subdomain, f"{path}.nodeName", endpoint["nodeName"])
    if endpoint.get("hostname") is not None:
        errors += by_rule(names.dns1123_label, f"{path}.hostname", endpoint["hostname"])
    return errors + _hints(endpoint.get("hints") or {}, f"{path}.hints")


def _address(address: str, kind: str | None, path: str) -> list[FieldError]:
    if kind == "FQDN":
        return _domain_name(address, path)
    if kind not in ("IPv4", "IPv6"):
        return []
    errors = validate_ip(path, address)
    if not errors and family(address) != kind:
        errors.append(invalid(path, address, f"must be an {kind} address"))
    return errors + validate_non_special_ip(path, address)


def _domain_name(name: str, path: str) -> list[FieldError]:
    if not name:
        return [required(path)]
    name = name.removesuffix(".")
    errors = by_rule(names.dns1123_subdomain, path, name)
    if not errors and "." not in name:
        text = "should be a domain with at least two segments separated by dots"
        errors.append(invalid(path, name, text))
    return errors


def _hints(hints: Mapping[str, Any], path: str) -> list[FieldError]:
    errors = []
    for key, rule in (("forZones", names.label_value), ("forNodes", names.dns1123_subdomain)):
        items = hints.get(key) or []
        seen = set[str]()
        if len(items) > _MOST_ZONES:
            errors.append(_too_many(f"{path}.{key}", len(items), _MOST_ZONES))
            continue
        for index, item in enumerate(items):
            at = f"{path}.{key}[{index}].name"
            name = item.get("name") or ""
            if name in seen:
                errors.append(duplicate(at, name))
            else:
                errors += by_rule(rule, at, name)
            seen.add(name)
    return errors


def _validate_ports(ports: Sequence[Mapping[str, Any]]) -> list[FieldError]:
    if len(ports) > _MOST_PORTS:
        return [_too_many("ports", len(ports), _MOST_PORTS)]
    errors = []
    seen = set[str]()
    for index, port in enumerate(ports):
        path = f"ports[{index}]"
        name = port.get("name") or ""
        if name:
            errors += by_rule(names.dns1123_label, f"{path}.name", name)
        if name in seen:
            errors.append(duplicate(f"{path}.name", name))
        seen.add(name)
        errors += one_of(f"{path}.protocol", port.get("protocol"), _PROTOCOLS)
        if port.get("appProtocol") is not None:
            errors += by_rule(names.qualified_name, f"{path}.appProtocol", port["appProtocol"])
    return errors


def row(obj: KubeObject, now: datetime) -> list[Any]:
    return [
        cells.name(obj),
        obj.get("addressType", ""),
        _ports(obj),
        _addresses(obj),
        cells.age(obj, now),
    ]


def _ports(obj: KubeObject) -> str:
    return _some([_port(port) for port in obj.get("ports") or ()])


def _port(port: Mapping[str, Any]) -> str:
    return str(port["port"]) if port.get("port") is not None else port.get("name", "*")


def _addresses(obj: KubeObject) -> str:
    endpoints = obj.get("endpoints") or ()
    return _some([ip for endpoint in endpoints for ip in endpoint.get("addresses") or ()])


def _some(items: Sequence[str]) -> str:
    """The first three items, and how many more there are."""
    more = f" + {len(items) - _MOST} more..." if len(items) > _MOST else ""
    return ",".join(items[:_MOST]) + more or cells.UNSET


KIND = KindSpec(
    resource=ENDPOINTSLICES,
    singular="endpointslice",
    generation=True,
    default=default,
    validate_create=validate_create,
    validate_update=validate_update,
    columns=COLUMNS,
    row=row,
)
