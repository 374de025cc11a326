"""PersistentVolume (core/v1): ValidatePersistentVolume of pkg/apis/core/validation.

The sources of the kubelet here, hostPath and local, are checked in depth; those of clouds and
drivers are stored unchecked.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kubewire.components.apiserver.kinds import cells
from kubewire.components.apiserver.kinds.fielderrors import (
    forbidden,
    if_one_of,
    immutable,
    not_supported,
    required,
)
from kubewire.components.apiserver.kinds.nodeselectors import validate_node_selector
from kubewire.components.apiserver.kinds.pods.container_validation import no_backsteps
from kubewire.components.apiserver.kinds.spec import Column, FieldError, KindSpec
from kubewire.components.apiserver.kinds.storage.volumecells import (
    access_modes,
    pending,
    phase,
    positive_amount,
    validate_common,
)
from kubewire.components.apiserver.kinds.strategy import keep_all_but_status, keep_status
from kubewire.components.kubeapi.resources import PERSISTENTVOLUMES, KubeObject

#: Fields of the spec that are no volume source.
_NO_SOURCE = frozenset(
    {
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
    }
)
_RECLAIM_POLICIES = ("Delete", "Recycle", "Retain")


def default(obj: KubeObject) -> None:
    spec = obj.setdefault("spec", {})
    if not spec.get("persistentVolumeReclaimPolicy"):
        spec["persistentVolumeReclaimPolicy"] = "Retain"
    if not spec.get("volumeMode"):
        spec["volumeMode"] = "Filesystem"
    if spec.get("hostPath") is not None:
        spec["hostPath"].setdefault("type", "")
    obj.setdefault("status", {}).setdefault("phase", "Pending")


def validate_create(obj: KubeObject) -> list[FieldError]:
    spec = obj.get("spec") or {}
    errors = [] if spec.get("accessModes") else [required("spec.accessModes")]
    errors += validate_common(spec)
    amounts = spec.get("capacity") or {}
    if not amounts:
        errors.append(required("spec.capacity"))
    if set(amounts) != {"storage"}:
        errors.append(not_supported("spec.capacity", amounts, ("storage",)))
    for name, amount in amounts.items():
        errors += positive_amount(f"spec.capacity[{name}]", amount)
    policy = spec.get("persistentVolumeReclaimPolicy")
    errors += if_one_of("spec.persistentVolumeReclaimPolicy", policy, _RECLAIM_POLICIES)
    required_nodes = (spec.get("nodeAffinity") or {}).get("required")
    if spec.get("nodeAffinity") is not None:
        if required_nodes is None:
            text = "must specify required node constraints"
            errors.append(required("spec.nodeAffinity.required", text))
        else:
            errors += validate_node_selector(required_nodes, "spec.nodeAffinity.required")
    return errors + _validate_source(spec)


def _source(spec: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in spec.items() if key not in _NO_SOURCE}


def _validate_source(spec: dict[str, Any]) -> list[FieldError]:
    sources = [key for key, value in _source(spec).items() if value is not None]
    if not sources:
        return [required("spec", "must specify a volume type")]
    errors = [
        forbidden(f"spec.{key}", "may not specify more than 1 volume type") for key in sources[1:]
    ]
    for key in ("hostPath", "local"):
        if key not in sources:
            continue
        path = spec[key].get("path") or ""
        if not path:
            errors.append(required(f"spec.{key}.path"))
        else:
            errors += no_backsteps(path, f"spec.{key}.path")
    if "local" in sources and not (spec.get("nodeAffinity") or {}).get("required"):
        errors.append(required("spec.nodeAffinity", "Local volume requires node affinity"))
    recycled = spec.get("persistentVolumeReclaimPolicy") == "Recycle"
    if recycled and (spec.get("hostPath") or {}).get("path") == "/":
        text = "may not be 'recycle' for a hostPath mount of '/'"
        errors.append(forbidden("spec.persistentVolumeReclaimPolicy", text))
    return errors


def validate_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    errors = validate_create(new)
    fresh, before = (obj.get("spec") or {} for obj in (new, old))
    if _source(fresh) != _source(before):
        text = "spec.persistentvolumesource is immutable after creation"
        errors.append(forbidden("spec.persistentvolumesource", text))
    errors += immutable("spec.volumeMode", fresh.get("volumeMode"), before.get("volumeMode"))
    if before.get("nodeAffinity"):
        affinities = fresh.get("nodeAffinity"), before["nodeAffinity"]
        errors += immutable("spec.nodeAffinity", *affinities)
    return errors


def row(obj: KubeObject, now: datetime) -> list[Any]:
    spec = obj.get("spec") or {}
    claim = spec.get("claimRef")
    return [
        cells.name(obj),
        cells.at(spec, "capacity", "storage") or "0",
        access_modes(spec.get("accessModes")),
        spec.get("persistentVolumeReclaimPolicy", ""),
        phase(obj),
        f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else "",
        spec.get("storageClassName", ""),
        spec.get("volumeAttributesClassName") or cells.UNSET,
        cells.at(obj, "status", "reason") or "",
        cells.age(obj, now),
        spec.get("volumeMode") or cells.UNSET,
    ]


KIND = KindSpec(
    resource=PERSISTENTVOLUMES,
    singular="persistentvolume",
    short_names=("pv",),
    subresources=("status",),
    default=default,
    prepare_create=pending,
    prepare_update=keep_status,
    prepare_status_update=keep_all_but_status,
    validate_create=validate_create,
    validate_update=validate_update,
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
    row=row,
)
