"""The kinds of dynamic resource allocation (resource.k8s.io/v1): pkg/apis/resource/validation.

No driver offers devices here; claims are served, and stay unallocated.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kubewire.components.apiserver.kinds import cells, names
from kubewire.components.apiserver.kinds.fielderrors import by_rule, duplicate, invalid, required
from kubewire.components.apiserver.kinds.spec import Column, FieldError, KindSpec
from kubewire.components.apiserver.kinds.strategy import (
    empty_status,
    keep_all_but_status,
    keep_status,
)
from kubewire.components.kubeapi.resources import KubeObject, Resource


def _resource(plural: str, kind: str, namespaced: bool) -> Resource[KubeObject]:
    return Resource("resource.k8s.io", "v1", plural, kind, namespaced=namespaced)


def _immutable_spec(new: KubeObject, old: KubeObject) -> list[FieldError]:
    if (new.get("spec") or {}) == (old.get("spec") or {}):
        return []
    return [invalid("spec", new.get("spec"), names.IMMUTABLE)]


def _name_and_age(obj: KubeObject, now: datetime) -> list[Any]:
    return [cells.name(obj), cells.age(obj, now)]


def default_claim(obj: KubeObject) -> None:
    _default_requests(obj.setdefault("spec", {}))


def default_template(obj: KubeObject) -> None:
    _default_requests(obj.setdefault("spec", {}).setdefault("spec", {}))


def _default_requests(spec: dict[str, Any]) -> None:
    for request in (spec.get("devices") or {}).get("requests") or ():
        for choice in (request.get("exactly"), *(request.get("firstAvailable") or ())):
            if isinstance(choice, dict):
                choice.setdefault("allocationMode", "ExactCount")
                if choice["allocationMode"] == "ExactCount":
                    choice.setdefault("count", 1)


def _requests(spec: dict[str, Any], path: str) -> list[FieldError]:
    errors = []
    seen = set[str]()
    for index, request in enumerate((spec.get("devices") or {}).get("requests") or ()):
        at = f"{path}.devices.requests[{index}]"
        name = request.get("name") or ""
        errors += (
            by_rule(names.dns1123_label, f"{at}.name", name) if name else [required(f"{at}.name")]
        )
        if name in seen:
            errors.append(duplicate(f"{at}.name", name))
        seen.add(name)
        exactly, first = request.get("exactly"), request.get("firstAvailable")
        if exactly is None and not first:
            text = "exactly one of `exactly` or `firstAvailable` is required"
            errors.append(required(at, text))
        if exactly is not None and not exactly.get("deviceClassName"):
            errors.append(required(f"{at}.exactly.deviceClassName"))
    return errors


def validate_claim(obj: KubeObject) -> list[FieldError]:
    return _requests(obj.get("spec") or {}, "spec")


def validate_template(obj: KubeObject) -> list[FieldError]:
    return _requests((obj.get("spec") or {}).get("spec") or {}, "spec.spec")


def claim_row(obj: KubeObject, now: datetime) -> list[Any]:
    status = obj.get("status") or {}
    states = ["allocated"] if status.get("allocation") else ["pending"]
    if status.get("reservedFor"):
        states.append("reserved")
    if obj["metadata"].get("deletionTimestamp"):
        states.insert(0, "deleted")
    return [cells.name(obj), ",".join(states), cells.age(obj, now)]


CLAIM_KIND = KindSpec(
    resource=_resource("resourceclaims", "ResourceClaim", True),
    singular="resourceclaim",
    subresources=("status",),
    default=default_claim,
    prepare_create=empty_status,
    prepare_update=keep_status,
    prepare_status_update=keep_all_but_status,
    validate_create=validate_claim,
    validate_update=_immutable_spec,
    columns=(
        cells.NAME,
        Column("State", "string", "", "Whether it is allocated and reserved."),
        cells.AGE,
    ),
    row=claim_row,
)

TEMPLATE_KIND = KindSpec(
    resource=_resource("resourceclaimtemplates", "ResourceClaimTemplate", True),
    singular="resourceclaimtemplate",
    default=default_template,
    validate_create=validate_template,
    validate_update=_immutable_spec,
    row=_name_and_age,
)

CLASS_KIND = KindSpec(
    resource=_resource("deviceclasses", "DeviceClass", False),
    singular="deviceclass",
    generation=True,
    row=_name_and_age,
)


def validate_slice(obj: KubeObject) -> list[FieldError]:
    spec = obj.get("spec") or {}
    errors = [] if spec.get("driver") else [required("spec.driver")]
    if not (spec.get("pool") or {}).get("name"):
        errors.append(required("spec.pool.name"))
    return errors


SLICE_KIND = KindSpec(
    resource=_resource("resourceslices", "ResourceSlice", False),
    singular="resourceslice",
    generation=True,
    validate_create=validate_slice,
    validate_update=lambda new, old: validate_slice(new),
    columns=(
        cells.NAME,
        Column("Node", "string", "", "The node that has the devices."),
        Column("Driver", "string", "", "The driver that offers them."),
        Column("Pool", "string", "", "The pool to which they belong."),
        cells.AGE,
    ),
    row=lambda obj, now: [
        cells.name(obj),
        cells.at(obj, "spec", "nodeName") or cells.UNSET,
        cells.at(obj, "spec", "driver") or "",
        cells.at(obj, "spec", "pool", "name") or "",
        cells.age(obj, now),
    ],
    selectable_fields=lambda obj: {
        "spec.nodeName": cells.at(obj, "spec", "nodeName") or "",
        "spec.driver": cells.at(obj, "spec", "driver") or "",
    },
)
