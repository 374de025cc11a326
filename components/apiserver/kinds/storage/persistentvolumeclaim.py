"""PersistentVolumeClaim (core/v1): ValidatePersistentVolumeClaim of pkg/apis/core/validation."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kubewire.components.apiserver.kinds import cells
from kubewire.components.apiserver.kinds.fielderrors import forbidden, required
from kubewire.components.apiserver.kinds.labelselectors import validate_selector
from kubewire.components.apiserver.kinds.spec import Column, FieldError, KindSpec
from kubewire.components.apiserver.kinds.storage.volumecells import (
    access_modes,
    pending,
    phase,
    positive_amount,
    validate_common,
)
from kubewire.components.apiserver.kinds.strategy import keep_all_but_status, keep_status
from kubewire.components.kubeapi.quantity import parse_quantity
from kubewire.components.kubeapi.resources import PERSISTENTVOLUMECLAIMS, KubeObject

_BETA_CLASS = "volume.beta.kubernetes.io/storage-class"


def default(obj: KubeObject) -> None:
    spec = obj.setdefault("spec", {})
    if not spec.get("volumeMode"):
        spec["volumeMode"] = "Filesystem"
    obj.setdefault("status", {}).setdefault("phase", "Pending")


def validate_create(obj: KubeObject) -> list[FieldError]:
    spec = obj.get("spec") or {}
    errors = validate_selector(spec.get("selector"), "spec.selector")
    if not spec.get("accessModes"):
        errors.append(required("spec.accessModes", "at least 1 access mode is required"))
    errors += validate_common(spec)
    amount = cells.at(spec, "resources", "requests", "storage")
    if amount is None:
        errors.append(required("spec.resources[storage]"))
    else:
        errors += positive_amount("spec.resources[storage]", amount)
    return errors


def validate_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    errors = validate_create(new)
    fresh, before = (obj.get("spec") or {} for obj in (new, old))
    is_bound = cells.at(old, "status", "phase") == "Bound"
    if _fixed(fresh, before, is_bound) != _fixed(before, before, is_bound):
        text = "spec is immutable after creation except resources.requests"
        text += " and volumeAttributesClassName for bound claims"
        errors.append(forbidden("spec", text))
    elif is_bound and _size(fresh) < _size(before):
        text = "field can not be less than status.capacity"
        held = cells.at(old, "status", "capacity", "storage") or "0"
        if _size(fresh) < parse_quantity(held):
            errors.append(forbidden("spec.resources.requests.storage", text))
    return errors


def _size(spec: dict[str, Any]) -> Any:
    try:
        return parse_quantity(cells.at(spec, "resources", "requests", "storage") or "0")
    except ValueError:
        return 0


def _fixed(
    spec: dict[str, Any],
    before: dict[str, Any],
    is_bound: bool,
) -> dict[str, Any]:
    """What an update must not change: a volume and a class may be set once, and the size and the
    class of attributes of a bound claim may change."""
    free = {"resources", "volumeAttributesClassName"} if is_bound else set[str]()
    free |= {key for key in ("volumeName", "storageClassName") if key not in before}
    return {key: value for key, value in spec.items() if key not in free}


def row(obj: KubeObject, now: datetime) -> list[Any]:
    spec = obj.get("spec") or {}
    status = obj.get("status") or {}
    bound = bool(spec.get("volumeName"))
    return [
        cells.name(obj),
        phase(obj),
        spec.get("volumeName", ""),
        cells.at(status, "capacity", "storage") or "0" if bound else "",
        access_modes(status.get("accessModes")) if bound else "",
        spec.get("storageClassName", ""),
        spec.get("volumeAttributesClassName") or cells.UNSET,
        cells.age(obj, now),
        spec.get("volumeMode") or cells.UNSET,
    ]


KIND = KindSpec(
    resource=PERSISTENTVOLUMECLAIMS,
    singular="persistentvolumeclaim",
    short_names=("pvc",),
    subresources=("status",),
    default=default,
    prepare_create=pending,
    prepare_update=keep_status,
    prepare_status_update=keep_all_but_status,
    validate_create=validate_create,
    validate_update=validate_update,
    columns=(
        cells.NAME,
        Column("Status", "string", "", "Its phase."),
        Column("Volume", "string", "", "The volume to which it is bound."),
        Column("Capacity", "string", "", "The size of the volume."),
        Column("Access Modes", "string", "", "The ways in which it can be mounted."),
        Column("StorageClass", "string", "", "StorageClass of the pvc"),
        Column("VolumeAttributesClass", "string", "", "VolumeAttributesClass of the pvc"),
        cells.AGE,
        Column("VolumeMode", "string", "", "Filesystem or Block.", 1),
    ),
    row=row,
)
