"""ServiceCIDR and IPAddress (networking.k8s.io/v1, KEP-1880): pkg/apis/networking/validation."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from kubewire.components.apiserver.kinds import cells
from kubewire.components.apiserver.kinds.addresses import family, validate_cidr, validate_ip
from kubewire.components.apiserver.kinds.fielderrors import immutable, invalid, required
from kubewire.components.apiserver.kinds.spec import Column, FieldError, KindSpec
from kubewire.components.apiserver.kinds.strategy import (
    empty_status,
    keep_all_but_status,
    keep_status,
)
from kubewire.components.kubeapi.resources import IPADDRESSES, SERVICECIDRS, KubeObject


def _cidrs(obj: KubeObject) -> Sequence[str]:
    return cells.at(obj, "spec", "cidrs") or ()


def validate_create(obj: KubeObject) -> list[FieldError]:
    cidrs = _cidrs(obj)
    path = "spec.cidrs"
    if not cidrs:
        return [required(path, "at least one CIDR required")]
    if len(cidrs) > 2:
        return [invalid(path, cidrs, "may only hold up to 2 values")]
    errors: list[FieldError] = []
    for index, cidr in enumerate(cidrs):
        errors += validate_cidr(f"{path}[{index}]", cidr)
    families = {family(cidr.partition("/")[0]) for cidr in cidrs}
    if not errors and len(cidrs) == 2 and len(families) == 1:
        text = "may specify no more than one IP for each IP family"
        text += ", i.e 192.168.0.0/24 and 2001:db8::/64"
        errors.append(invalid(path, cidrs, text))
    return errors


def validate_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    before = list(_cidrs(old))
    after = list(_cidrs(new))
    if len(before) == 1 and len(after) == 2 and before[0] == after[0]:
        return validate_create(new)
    return immutable("spec.cidrs", after, before)


def row(obj: KubeObject, now: datetime) -> list[Any]:
    return [cells.name(obj), ",".join(_cidrs(obj)), cells.age(obj, now)]


KIND = KindSpec(
    resource=SERVICECIDRS,
    singular="servicecidr",
    subresources=("status",),
    prepare_create=empty_status,
    prepare_update=keep_status,
    prepare_status_update=keep_all_but_status,
    validate_create=validate_create,
    validate_update=validate_update,
    columns=(
        cells.NAME,
        Column("CIDRs", "string", "", "The ranges from which ClusterIPs are allocated."),
        cells.AGE,
    ),
    row=row,
)


def validate_address(obj: KubeObject) -> list[FieldError]:
    errors = validate_ip("metadata.name", obj["metadata"].get("name", ""))
    reference = cells.at(obj, "spec", "parentRef")
    if reference is None:
        return [*errors, required("spec.parentRef")]
    for key in ("resource", "name"):
        if not reference.get(key):
            errors.append(required(f"spec.parentRef.{key}"))
    return errors


def validate_address_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    errors = immutable(
        "spec.parentRef",
        cells.at(new, "spec", "parentRef"),
        cells.at(old, "spec", "parentRef"),
    )
    return errors + validate_address(new)


def address_row(obj: KubeObject, now: datetime) -> list[Any]:
    reference = cells.at(obj, "spec", "parentRef") or {}
    parts = [
        reference.get("group"),
        reference.get("resource"),
        reference.get("namespace"),
        reference.get("name"),
    ]
    kind = f"{parts[1]}.{parts[0]}" if parts[0] else parts[1]
    return [
        cells.name(obj),
        "/".join(part for part in (kind, parts[2], parts[3]) if part) or cells.NONE,
    ]


ADDRESS_KIND = KindSpec(
    resource=IPADDRESSES,
    singular="ipaddress",
    short_names=("ip",),
    validate_create=validate_address,
    validate_update=validate_address_update,
    columns=(cells.NAME, Column("ParentRef", "string", "", "The owner of the address.")),
    row=address_row,
)
