"""Deployment (apps/v1): pkg/registry/apps/deployment, pkg/apis/apps/v1/defaults.go."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kubewire.components.apiserver.kinds import cells
from kubewire.components.apiserver.kinds.fielderrors import (
    forbidden,
    invalid,
    not_supported,
    required,
)
from kubewire.components.apiserver.kinds.pods.pod_defaults import default_pod_template
from kubewire.components.apiserver.kinds.spec import Column, FieldError, KindSpec, ScalePaths
from kubewire.components.apiserver.kinds.strategy import (
    empty_status,
    keep_all_but_status_and_labels,
    keep_status,
)
from kubewire.components.apiserver.kinds.workloads.workload import (
    as_number,
    at_most_all,
    int_or_percent,
    not_negative_fields,
    replica_status,
    selector_is_immutable,
    validate_selector_and_template,
)
from kubewire.components.kubeapi.resources import DEPLOYMENTS, KubeObject
from kubewire.components.kubeapi.selectors import LabelSelector

COLUMNS = (
    cells.NAME,
    Column("Ready", "string", "", "Number of the pod with ready state"),
    Column("Up-to-date", "string", "", "Number of pods that have the current template."),
    Column("Available", "string", "", "Number of pods that have been ready for minReadySeconds."),
    cells.AGE,
    cells.CONTAINERS,
    cells.IMAGES,
    cells.SELECTOR,
)


def default(obj: KubeObject) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    strategy = spec.setdefault("strategy", {})
    if not strategy.get("type"):
        strategy["type"] = "RollingUpdate"
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", "25%")
        rolling.setdefault("maxSurge", "25%")
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)
    default_pod_template(spec.setdefault("template", {}))


def row(obj: KubeObject, now: datetime) -> list[Any]:
    spec = obj.get("spec") or {}
    status = obj.get("status") or {}
    return [
        cells.name(obj),
        f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}",
        status.get("updatedReplicas", 0),
        status.get("availableReplicas", 0),
        cells.age(obj, now),
        *cells.containers(cells.at(spec, "template", "spec") or {}),
        str(LabelSelector.from_object(spec.get("selector"))),
    ]


def validate_create(obj: KubeObject) -> list[FieldError]:
    spec = obj.get("spec") or {}
    counts = ("replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds")
    errors = not_negative_fields(spec, "spec", *counts)
    errors += validate_selector_and_template(spec, "deployment")
    errors += _strategy(spec.get("strategy") or {})
    deadline = spec.get("progressDeadlineSeconds")
    if deadline is not None and deadline <= spec.get("minReadySeconds", 0):
        errors.append(
            invalid(
                "spec.progressDeadlineSeconds",
                deadline,
                "must be greater than minReadySeconds",
            )
        )
    return errors


def _strategy(strategy: dict[str, Any]) -> list[FieldError]:
    kind = strategy.get("type")
    rolling = strategy.get("rollingUpdate")
    path = "spec.strategy"
    if kind == "Recreate":
        text = "may not be specified when strategy `type` is 'Recreate'"
        return [forbidden(f"{path}.rollingUpdate", text)] if rolling is not None else []
    if kind != "RollingUpdate":
        return [not_supported(path, strategy, ("Recreate", "RollingUpdate"))]
    if rolling is None:
        return [required(f"{path}.rollingUpdate", "this should be defaulted and never be nil")]
    path += ".rollingUpdate"
    unavailable = rolling.get("maxUnavailable")
    surge = rolling.get("maxSurge")
    errors = int_or_percent(f"{path}.maxUnavailable", unavailable)
    errors += int_or_percent(f"{path}.maxSurge", surge)
    if as_number(unavailable) == 0 and as_number(surge) == 0:
        errors.append(
            invalid(f"{path}.maxUnavailable", unavailable, "may not be 0 when `maxSurge` is 0"),
        )
    return errors + at_most_all(f"{path}.maxUnavailable", unavailable)


def validate_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    return validate_create(new) + selector_is_immutable(new, old)


def validate_status_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    return replica_status(new)


KIND = KindSpec(
    resource=DEPLOYMENTS,
    singular="deployment",
    generation=True,
    short_names=("deploy",),
    categories=("all",),
    subresources=("status", "scale"),
    default=default,
    prepare_create=empty_status,
    prepare_update=keep_status,
    prepare_status_update=keep_all_but_status_and_labels,
    validate_create=validate_create,
    validate_update=validate_update,
    validate_status_update=validate_status_update,
    columns=COLUMNS,
    row=row,
    scale=ScalePaths(".spec.replicas", ".status.replicas", ".spec.selector"),
)
