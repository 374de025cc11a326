"""PersistentVolume, PersistentVolumeClaim (core/v1) and StorageClass (storage.k8s.io/v1).

They are stored, and no controller acts on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from kubewire.components.apiserver.kinds import cells
from kubewire.components.apiserver.kinds.fielderrors import forbidden, required
from kubewire.components.apiserver.kinds.spec import Column, FieldError, KindSpec
from kubewire.components.apiserver.kinds.strategy import keep_all_but_status, keep_status
from kubewire.components.kubeapi.resources import KubeObject, Resource

PERSISTENTVOLUMES: Resource[KubeObject] = Resource(
    "", "v1", "persistentvolumes", "PersistentVolume", namespaced=False
)
PERSISTENTVOLUMECLAIMS: Resource[KubeObject] = Resource(
    "", "v1", "persistentvolumeclaims", "PersistentVolumeClaim"
)
STORAGECLASSES: Resource[KubeObject] = Resource(
    "storage.k8s.io",
    "v1",
    "storageclasses",
    "StorageClass",
    namespaced=False,
)

_MODES = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}
_DEFAULT_CLASS = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)


def _modes(modes: Sequence[str] | None) -> str:
    return ",".join(short for mode, short in _MODES.items() if mode in (modes or ()))


def _phase(obj: KubeObject) -> str:
    if obj["metadata"].get("deletionTimestamp"):
        return "Terminating"
    return cells.at(obj, "status", "phase") or ""


def default_volume(obj: KubeObject) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("persistentVolumeReclaimPolicy", "Retain")
    spec.setdefault("volumeMode", "Filesystem")
    obj.setdefault("status", {}).setdefault("phase", "Pending")


def pending(obj: KubeObject) -> None:
    obj["status"] = {"phase": "Pending"}


def validate_volume(obj: KubeObject) -> list[FieldError]:
    spec = obj.get("spec") or {}
    return [required(f"spec.{key}") for key in ("accessModes", "capacity") if not spec.get(key)]


def volume_row(obj: KubeObject, now: datetime) -> list[Any]:
    spec = obj.get("spec") or {}
    claim = spec.get("claimRef")
    return [
        cells.name(obj),
        cells.at(spec, "capacity", "storage") or "0",
        _modes(spec.get("accessModes")),
        spec.get("persistentVolumeReclaimPolicy", ""),
        _phase(obj),
        f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else "",
        spec.get("storageClassName", ""),
        spec.get("volumeAttributesClassName") or cells.UNSET,
        cells.at(obj, "status", "reason") or "",
        cells.age(obj, now),
        spec.get("volumeMode") or cells.UNSET,
    ]


VOLUME_KIND = KindSpec(
    resource=PERSISTENTVOLUMES,
    singular="persistentvolume",
    short_names=("pv",),
    subresources=("status",),
    default=default_volume,
    prepare_create=pending,
    prepare_update=keep_status,
    prepare_status_update=keep_all_but_status,
    validate_create=validate_volume,
    columns=(
        cells.NAME,
        Column("Capacity", "string", "", "The size of the volume."),
        Column("Access Modes", "string", "", "The ways in which it can be mounted."),
        Column("Reclaim Policy", "string", "", "What happens when its claim is deleted."),
        Column("Status", "string", "", "Its phase."),
        Column("Claim", "string", "", "The claim to which it is bound."),
        Column("StorageClass", "string", "", "StorageClass of the pv"),
        Column("VolumeAttributesClass", "string", "", "VolumeAttributesClass of the pv"),
        Column("Reason", "string", "", "Why it is in its phase."),
        cells.AGE,
        Column("VolumeMode", "string", "", "Filesystem or Block.", 1),
    ),
    row=volume_row,
)


def default_claim(obj: KubeObject) -> None:
    obj.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")
    obj.setdefault("status", {}).setdefault("phase", "Pending")


def validate_claim(obj: KubeObject) -> list[FieldError]:
    spec = obj.get("spec") or {}
    errors = []
    if not spec.get("accessModes"):
        errors.append(required("spec.accessModes", "at least 1 access mode is required"))
    if not cells.at(spec, "resources", "requests", "storage"):
        errors.append(required("spec.resources[storage]"))
    return errors


def validate_claim_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    fixed = [_fixed_claim(obj.get("spec") or {}) for obj in (new, old)]
    errors = validate_claim(new)
    if fixed[0] != fixed[1]:
        text = "spec is immutable after creation except resources.requests"
        text += " and volumeAttributesClassName for bound claims"
        errors.append(forbidden("spec", text))
    return errors


def _fixed_claim(spec: dict[str, Any]) -> dict[str, Any]:
    free = ("resources", "volumeAttributesClassName", "volumeName", "storageClassName")
    return {key: value for key, value in spec.items() if key not in free}


def claim_row(obj: KubeObject, now: datetime) -> list[Any]:
    spec = obj.get("spec") or {}
    status = obj.get("status") or {}
    bound = bool(spec.get("volumeName"))
    return [
        cells.name(obj),
        _phase(obj),
        spec.get("volumeName", ""),
        cells.at(status, "capacity", "storage") or "0" if bound else "",
        _modes(status.get("accessModes")) if bound else "",
        spec.get("storageClassName", ""),
        spec.get("volumeAttributesClassName") or cells.UNSET,
        cells.age(obj, now),
        spec.get("volumeMode") or cells.UNSET,
    ]


CLAIM_KIND = KindSpec(
    resource=PERSISTENTVOLUMECLAIMS,
    singular="persistentvolumeclaim",
    short_names=("pvc",),
    subresources=("status",),
    default=default_claim,
    prepare_create=pending,
    prepare_update=keep_status,
    prepare_status_update=keep_all_but_status,
    validate_create=validate_claim,
    validate_update=validate_claim_update,
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
    row=claim_row,
)


def default_class(obj: KubeObject) -> None:
    obj.setdefault("reclaimPolicy", "Delete")
    obj.setdefault("volumeBindingMode", "Immediate")


def validate_class(obj: KubeObject) -> list[FieldError]:
    return [] if obj.get("provisioner") else [required("provisioner")]


def class_row(obj: KubeObject, now: datetime) -> list[Any]:
    annotations = obj["metadata"].get("annotations") or {}
    is_default = any(annotations.get(key) == "true" for key in _DEFAULT_CLASS)
    return [
        cells.name(obj) + (" (default)" if is_default else ""),
        obj.get("provisioner", ""),
        obj.get("reclaimPolicy", "Delete"),
        obj.get("volumeBindingMode", cells.UNSET),
        bool(obj.get("allowVolumeExpansion")),
        cells.age(obj, now),
    ]


CLASS_KIND = KindSpec(
    resource=STORAGECLASSES,
    singular="storageclass",
    short_names=("sc",),
    default=default_class,
    validate_create=validate_class,
    columns=(
        cells.NAME,
        Column("Provisioner", "string", "", "The provisioner of the volumes."),
        Column("ReclaimPolicy", "string", "", "What happens when a claim is deleted."),
        Column("VolumeBindingMode", "string", "", "When a claim is bound to its volume."),
        Column("AllowVolumeExpansion", "string", "", "Whether claims may grow."),
        cells.AGE,
    ),
    row=class_row,
)
