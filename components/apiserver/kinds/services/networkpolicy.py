"""NetworkPolicy (networking.k8s.io/v1): pkg/apis/networking/validation,
pkg/registry/networking/networkpolicy.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from kubewire.components.apiserver.kinds import cells
from kubewire.components.apiserver.kinds.addresses import validate_legacy_cidr
from kubewire.components.apiserver.kinds.fielderrors import (
    forbidden,
    invalid,
    one_of,
    port_number_or_name,
    required,
)
from kubewire.components.apiserver.kinds.labelselectors import validate_selector
from kubewire.components.apiserver.kinds.spec import Column, FieldError, KindSpec
from kubewire.components.kubeapi.resources import NETWORKPOLICIES, KubeObject

_PROTOCOLS = ("SCTP", "TCP", "UDP")
_TYPES = ("Egress", "Ingress")


def default(obj: KubeObject) -> None:
    """Sets policyTypes to Ingress, and adds Egress when there are egress rules."""
    spec = obj.setdefault("spec", {})
    spec.setdefault("podSelector", {})
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
    for rule in [*(spec.get("ingress") or ()), *(spec.get("egress") or ())]:
        for port in rule.get("ports") or ():
            if not port.get("protocol"):
                port["protocol"] = "TCP"


def prepare_create(obj: KubeObject) -> None:
    obj.pop("status", None)


def prepare_update(new: KubeObject, old: KubeObject) -> None:
    new.pop("status", None)


def validate_create(obj: KubeObject) -> list[FieldError]:
    spec = obj.get("spec") or {}
    errors = validate_selector(spec.get("podSelector"), "spec.podSelector")
    for index, rule in enumerate(spec.get("ingress") or ()):
        errors += _rule(rule, f"spec.ingress[{index}]", "from")
    for index, rule in enumerate(spec.get("egress") or ()):
        errors += _rule(rule, f"spec.egress[{index}]", "to")
    types = spec.get("policyTypes") or []
    if len(types) > 2:
        errors.append(
            invalid("spec.policyTypes", types, "may not specify more than two policyTypes"),
        )
        return errors
    for index, policy_type in enumerate(types):
        errors += one_of(f"spec.policyTypes[{index}]", policy_type, _TYPES)
    return errors


def _rule(rule: Mapping[str, Any], path: str, peers: str) -> list[FieldError]:
    errors = []
    for index, port in enumerate(rule.get("ports") or ()):
        errors += _port(port, f"{path}.ports[{index}]")
    for index, peer in enumerate(rule.get(peers) or ()):
        errors += _peer(peer, f"{path}.{peers}[{index}]")
    return errors


def _port(port: Mapping[str, Any], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    if port.get("protocol"):
        errors += one_of(f"{path}.protocol", port["protocol"], _PROTOCOLS)
    number = port.get("port")
    end = port.get("endPort")
    if number is None:
        if end is not None:
            errors.append(required(f"{path}.port", "must be specified when `endPort` is specified"))
        return errors
    errors += port_number_or_name(f"{path}.port", number)
    if end is not None:
        if isinstance(number, str):
            errors.append(
                invalid(f"{path}.endPort", end, "may not be specified when `port` is non-numeric"),
            )
        elif end < number:
            errors.append(
                invalid(f"{path}.endPort", end, "must be greater than or equal to `port`"),
            )
        else:
            errors += port_number_or_name(f"{path}.endPort", end)
    return errors


def _peer(peer: Mapping[str, Any], path: str) -> list[FieldError]:
    errors = []
    given = 0
    for key in ("podSelector", "namespaceSelector"):
        if peer.get(key) is not None:
            given += 1
            errors += validate_selector(peer[key], f"{path}.{key}")
    if peer.get("ipBlock") is not None:
        errors += _ip_block(peer["ipBlock"], f"{path}.ipBlock")
        if given:
            text = "may not specify both ipBlock and another peer"
            return [*errors, forbidden(path, text)]
        given += 1
    return errors if given else [*errors, required(path, "must specify a peer")]


def _ip_block(block: Mapping[str, Any], path: str) -> list[FieldError]:
    cidr = block.get("cidr") or ""
    if not cidr:
        return [required(f"{path}.cidr")]
    errors = validate_legacy_cidr(f"{path}.cidr", cidr)
    if errors:
        return errors
    outer = ipaddress.ip_network(cidr, strict=False)
    for index, text in enumerate(block.get("except") or ()):
        at = f"{path}.except[{index}]"
        wrong = validate_legacy_cidr(at, text)
        errors += wrong
        if wrong:
            continue
        inner = ipaddress.ip_network(text, strict=False)
        is_inside = inner.version == outer.version and inner.network_address in outer
        if not is_inside or inner.prefixlen <= outer.prefixlen:
            errors.append(invalid(at, text, "must be a strict subset of `cidr`"))
    return errors


def validate_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    return validate_create(new)


def row(obj: KubeObject, now: datetime) -> list[Any]:
    return [
        cells.name(obj),
        cells.selector(cells.at(obj, "spec", "podSelector")),
        cells.age(obj, now),
    ]


KIND = KindSpec(
    resource=NETWORKPOLICIES,
    singular="networkpolicy",
    generation=True,
    short_names=("netpol",),
    default=default,
    prepare_create=prepare_create,
    prepare_update=prepare_update,
    validate_create=validate_create,
    validate_update=validate_update,
    columns=(
        cells.NAME,
        Column("Pod-Selector", "string", "", "The pods to which it applies."),
        cells.AGE,
    ),
    row=row,
)
