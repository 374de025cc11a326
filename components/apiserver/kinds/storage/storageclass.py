"""StorageClass (storage.k8s.io/v1): pkg/apis/storage/validation."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kubewire.components.apiserver.kinds import cells, names
from kubewire.components.apiserver.kinds.fielderrors import (
    by_rule,
    forbidden,
    one_of,
    required,
)
from kubewire.components.apiserver.kinds.spec import Column, FieldError, KindSpec
from kubewire.components.kubeapi.resources import STORAGECLASSES, KubeObject
from kubewire.components.kubeapi.volumes import DEFAULT_CLASS

_BINDING_MODES = ("Immediate", "WaitForFirstConsumer")


def default(obj: KubeObject) -> None:
    obj.setdefault("reclaimPolicy", "Delete")
    obj.setdefault("volumeBindingMode", "Immediate")


def validate_create(obj: KubeObject) -> list[FieldError]:
    provisioner = obj.get("provisioner") or ""
    if provisioner:
        errors = by_rule(names.qualified_name, "provisioner", provisioner.lower())
    else:
        errors = [required("provisioner")]
    for key in obj.get("parameters") or {}:
        if not key:
            errors.append(required("parameters", "key must not be empty"))
    errors += one_of("reclaimPolicy", obj.get("reclaimPolicy"), ("Delete", "Retain"))
    return errors + one_of("volumeBindingMode", obj.get("volumeBindingMode"), _BINDING_MODES)


_FIXED = {
    "parameters": "updates to parameters are forbidden.",
    "provisioner": "updates to provisioner are forbidden.",
    "reclaimPolicy": "updates to reclaimPolicy are forbidden.",
}


def validate_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    errors = [
        forbidden(key, text)
        for key, text in _FIXED.items()
        if (new.get(key) or None) != (old.get(key) or None)
    ]
    if new.get("volumeBindingMode") != old.get("volumeBindingMode"):
        # ValidateImmutableField of the strategy.
        errors.append(
            FieldError(
                "Invalid", "volumeBindingMode", new.get("volumeBindingMode"), names.IMMUTABLE
            )
        )
    return errors + validate_create(new)


def row(obj: KubeObject, now: datetime) -> list[Any]:
    annotations = obj["metadata"].get("annotations") or {}
    is_default = any(annotations.get(key) == "true" for key in DEFAULT_CLASS)
    return [
        cells.name(obj) + (" (default)" if is_default else ""),
        obj.get("provisioner", ""),
        obj.get("reclaimPolicy", "Delete"),
        obj.get("volumeBindingMode", cells.UNSET),
        bool(obj.get("allowVolumeExpansion")),
        cells.age(obj, now),
    ]


KIND = KindSpec(
    resource=STORAGECLASSES,
    singular="storageclass",
    short_names=("sc",),
    default=default,
    validate_create=validate_create,
    validate_update=validate_update,
    columns=(
        cells.NAME,
        Column("Provisioner", "string", "", "The provisioner of the volumes."),
        Column("ReclaimPolicy", "string", "", "What happens when a claim is deleted."),
        Column("VolumeBindingMode", "string", "", "When a claim is bound to its volume."),
        Column("AllowVolumeExpansion", "string", "", "Whether claims may grow."),
        cells.AGE,
    ),
    row=row,
)
