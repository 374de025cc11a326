"""ReplicaSet (apps/v1): k8s.io/kubernetes/pkg/registry/apps/replicaset."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kubewire.components.apiserver.kinds import cells
from kubewire.components.apiserver.kinds.pods.pod_defaults import default_pod_template
from kubewire.components.apiserver.kinds.spec import Column, FieldError, KindSpec, ScalePaths
from kubewire.components.apiserver.kinds.strategy import keep_all_but_status, keep_status
from kubewire.components.apiserver.kinds.workloads.workload import (
    not_negative_fields,
    replica_status,
    selector_is_immutable,
    validate_selector_and_template,
)
from kubewire.components.kubeapi.resources import REPLICASETS, KubeObject

COLUMNS = (
    cells.NAME,
    Column("Desired", "integer", "", "Number of pods it should have."),
    Column("Current", "integer", "", "Number of pods it has."),
    Column("Ready", "integer", "", "Number of pods that are ready."),
    cells.AGE,
    cells.CONTAINERS,
    cells.IMAGES,
    cells.SELECTOR,
)


def default(obj: KubeObject) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    default_pod_template(spec.setdefault("template", {}))


def prepare_create(obj: KubeObject) -> None:
    obj["status"] = {"replicas": 0}


def row(obj: KubeObject, now: datetime) -> list[Any]:
    return [*row_but_selector(obj, now), cells.selector(cells.at(obj, "spec", "selector"))]


def row_but_selector(obj: KubeObject, now: datetime) -> list[Any]:
    """The cells that ReplicaSets and ReplicationControllers share; their selectors differ in
    form.
    """
    spec = obj.get("spec") or {}
    status = obj.get("status") or {}
    return [
        cells.name(obj),
        spec.get("replicas", 0),
        status.get("replicas", 0),
        status.get("readyReplicas", 0),
        cells.age(obj, now),
        *cells.containers(cells.at(spec, "template", "spec") or {}),
    ]


def selectable_fields(obj: KubeObject) -> dict[str, str]:
    return {"status.replicas": str(cells.at(obj, "status", "replicas") or 0)}


def validate_create(obj: KubeObject) -> list[FieldError]:
    spec = obj.get("spec") or {}
    errors = not_negative_fields(spec, "spec", "replicas", "minReadySeconds")
    return errors + validate_selector_and_template(
        spec, "ReplicaSet", empty_text="empty selector is invalid for deployment"
    )


def validate_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    return validate_create(new) + selector_is_immutable(new, old)


def validate_status_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    return replica_status(new)


KIND = KindSpec(
    resource=REPLICASETS,
    singular="replicaset",
    generation=True,
    short_names=("rs",),
    categories=("all",),
    subresources=("status", "scale"),
    default=default,
    prepare_create=prepare_create,
    prepare_update=keep_status,
    prepare_status_update=keep_all_but_status,
    validate_create=validate_create,
    validate_update=validate_update,
    validate_status_update=validate_status_update,
    columns=COLUMNS,
    row=row,
    selectable_fields=selectable_fields,
    scale=ScalePaths(".spec.replicas", ".status.replicas", ".spec.selector"),
)
