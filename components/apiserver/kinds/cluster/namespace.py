"""Namespace (core/v1): k8s.io/kubernetes/pkg/registry/core/namespace/strategy.go."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kubewire.components.apiserver.kinds import cells, names
from kubewire.components.apiserver.kinds.fielderrors import by_rule, invalid
from kubewire.components.apiserver.kinds.spec import Column, FieldError, KindSpec, Subresource
from kubewire.components.kubeapi.resources import NAMESPACES, KubeObject

FINALIZER = "kubernetes"
NAME_LABEL = "kubernetes.io/metadata.name"

COLUMNS = (cells.NAME, Column("Status", "string", "", "The status of the namespace"), cells.AGE)


def default(namespace: KubeObject) -> None:
    metadata = namespace["metadata"]
    if metadata.get("name"):
        labels = metadata.get("labels") or {}
        labels[NAME_LABEL] = metadata["name"]
        metadata["labels"] = labels
    namespace.setdefault("spec", {})
    status = namespace.setdefault("status", {})
    if not status.get("phase"):
        status["phase"] = "Active"


def prepare_create(namespace: KubeObject) -> None:
    """Adds the finalizer `kubernetes`, which keeps the namespace until its contents are deleted."""
    namespace["status"] = {"phase": "Active"}
    spec = namespace["spec"] = namespace.get("spec") or {}
    finalizers = spec.get("finalizers") or []
    spec["finalizers"] = finalizers if FINALIZER in finalizers else [*finalizers, FINALIZER]


def prepare_update(new: KubeObject, old: KubeObject) -> None:
    new["spec"] = {
        **(new.get("spec") or {}),
        "finalizers": cells.at(old, "spec", "finalizers") or [],
    }
    new["status"] = old.get("status") or {}


def prepare_status_update(new: KubeObject, old: KubeObject) -> None:
    new["spec"] = old.get("spec") or {}


def validate_create(namespace: KubeObject) -> list[FieldError]:
    errors = []
    for name in cells.at(namespace, "spec", "finalizers") or ():
        errors += by_rule(names.qualified_name, "spec.finalizers", name)
        if "/" not in name and name not in (FINALIZER, "orphan", "foregroundDeletion"):
            text = "name is neither a standard finalizer name nor is it fully qualified"
            errors.append(invalid("spec.finalizers", name, text))
    return errors


def validate_status_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    phase = cells.at(new, "status", "phase") or ""
    deleted = bool(new["metadata"].get("deletionTimestamp"))
    if phase == ("Terminating" if deleted else "Active"):
        return []
    text = "may only be 'Terminating' if `deletionTimestamp` is not empty"
    if not deleted:
        text = "may only be 'Active' if `deletionTimestamp` is empty"
    return [invalid("status.Phase", phase, text)]


def row(namespace: KubeObject, now: datetime) -> list[Any]:
    return [
        cells.name(namespace),
        cells.at(namespace, "status", "phase") or "",
        cells.age(namespace, now),
    ]


def selectable_fields(namespace: KubeObject) -> dict[str, str]:
    return {"status.phase": cells.at(namespace, "status", "phase") or ""}


def prepare_delete(obj: KubeObject) -> None:
    obj.setdefault("status", {})["phase"] = "Terminating"


KIND = KindSpec(
    resource=NAMESPACES,
    singular="namespace",
    more_subresources=(Subresource("finalize", "Namespace", ("update",)),),
    short_names=("ns",),
    subresources=("status",),
    default=default,
    prepare_create=prepare_create,
    prepare_update=prepare_update,
    prepare_status_update=prepare_status_update,
    prepare_delete=prepare_delete,
    validate_create=validate_create,
    validate_status_update=validate_status_update,
    columns=COLUMNS,
    row=row,
    selectable_fields=selectable_fields,
)
