"""PodTemplate and ReplicationController (core/v1): pkg/apis/core/validation."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kubewire.components.apiserver.kinds import cells
from kubewire.components.apiserver.kinds.fielderrors import invalid, required
from kubewire.components.apiserver.kinds.pods.pod_defaults import default_pod_template
from kubewire.components.apiserver.kinds.spec import Column, FieldError, KindSpec, ScalePaths
from kubewire.components.apiserver.kinds.strategy import keep_all_but_status, keep_status
from kubewire.components.apiserver.kinds.workloads import replicaset
from kubewire.components.apiserver.kinds.workloads.workload import (
    not_negative_fields,
    validate_template,
)
from kubewire.components.kubeapi.resources import REPLICATIONCONTROLLERS, KubeObject, Resource

PODTEMPLATES: Resource[KubeObject] = Resource("", "v1", "podtemplates", "PodTemplate")


def default(obj: KubeObject) -> None:
    default_pod_template(obj.setdefault("template", {}))


def row(obj: KubeObject, now: datetime) -> list[Any]:
    template = obj.get("template") or {}
    names = cells.containers(template.get("spec") or {})
    return [cells.name(obj), *names, cells.labels(cells.at(template, "metadata", "labels"))]


KIND = KindSpec(
    resource=PODTEMPLATES,
    singular="podtemplate",
    default=default,
    columns=(
        cells.NAME,
        Column("Containers", "string", "", "Names of each container in the template."),
        Column("Images", "string", "", "Images referenced by each container in the template."),
        Column("Pod Labels", "string", "", "The labels for the pod template."),
    ),
    row=row,
)


def default_controller(obj: KubeObject) -> None:
    """Takes missing labels and a missing selector from the template."""
    spec = obj.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    template = spec.get("template")
    if template is None:
        return
    default_pod_template(template)
    labels = cells.at(template, "metadata", "labels")
    if labels:
        spec.setdefault("selector", dict(labels))
        obj["metadata"].setdefault("labels", dict(labels))


def prepare_controller(obj: KubeObject) -> None:
    obj["status"] = {"replicas": 0}


def validate_controller(obj: KubeObject) -> list[FieldError]:
    """ValidateReplicationControllerSpec; without a template, spec.template is required."""
    spec = obj.get("spec") or {}
    errors = not_negative_fields(spec, "spec", "minReadySeconds", "replicas")
    selector = spec.get("selector") or {}
    if not selector:
        errors.append(required("spec.selector"))
    template = spec.get("template")
    if template is None:
        return [*errors, required("spec.template")]
    labels = cells.at(template, "metadata", "labels") or {}
    if not selector.items() <= labels.items():
        text = "`selector` does not match template `labels`"
        errors.append(invalid("spec.template.metadata.labels", labels, text))
    return errors + validate_template(template, "ReplicationController")


def validate_controller_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    return validate_controller(new)


def controller_row(obj: KubeObject, now: datetime) -> list[Any]:
    return [*replicaset.row_but_selector(obj, now), cells.labels(cells.at(obj, "spec", "selector"))]


CONTROLLER_KIND = KindSpec(
    resource=REPLICATIONCONTROLLERS,
    singular="replicationcontroller",
    generation=True,
    short_names=("rc",),
    categories=("all",),
    subresources=("status", "scale"),
    default=default_controller,
    prepare_create=prepare_controller,
    prepare_update=keep_status,
    prepare_status_update=keep_all_but_status,
    validate_create=validate_controller,
    validate_update=validate_controller_update,
    columns=replicaset.COLUMNS,
    row=controller_row,
    selectable_fields=replicaset.selectable_fields,
    scale=ScalePaths(".spec.replicas", ".status.replicas", ".spec.selector"),
)
