"""DaemonSet (apps/v1): k8s.io/kubernetes/pkg/registry/apps/daemonset."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kubewire.components.apiserver.kinds import cells
from kubewire.components.apiserver.kinds.fielderrors import invalid, not_supported, required
from kubewire.components.apiserver.kinds.pods.pod_defaults import default_pod_template
from kubewire.components.apiserver.kinds.spec import Column, FieldError, KindSpec
from kubewire.components.apiserver.kinds.strategy import keep_all_but_status, keep_status
from kubewire.components.apiserver.kinds.workloads.workload import (
    as_number,
    at_most_all,
    int_or_percent,
    not_negative_fields,
    selector_is_immutable,
    validate_selector_and_template,
)
from kubewire.components.kubeapi.resources import DAEMONSETS, KubeObject

COLUMNS = (
    cells.NAME,
    Column("Desired", "integer", "", "Number of nodes that should run the pod."),
    Column("Current", "integer", "", "Number of nodes that run the pod."),
    Column("Ready", "integer", "", "Number of nodes whose pod is ready."),
    Column("Up-to-date", "integer", "", "Number of nodes that run the current template."),
    Column(
        "Available",
        "integer",
        "",
        "Number of nodes whose pod has been ready for minReadySeconds.",
    ),
    Column("Node Selector", "string", "", "The labels of the nodes that it selects."),
    cells.AGE,
    cells.CONTAINERS,
    cells.IMAGES,
    cells.SELECTOR,
)
_COUNTS = (
    "desiredNumberScheduled",
    "currentNumberScheduled",
    "numberReady",
    "updatedNumberScheduled",
    "numberAvailable",
)


def default(obj: KubeObject) -> None:
    spec = obj.setdefault("spec", {})
    strategy = spec.setdefault("updateStrategy", {})
    if not strategy.get("type"):
        strategy["type"] = "RollingUpdate"
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", 1)
        rolling.setdefault("maxSurge", 0)
    spec.setdefault("revisionHistoryLimit", 10)
    default_pod_template(spec.setdefault("template", {}))


def prepare_create(obj: KubeObject) -> None:
    obj["status"] = {
        "currentNumberScheduled": 0,
        "numberMisscheduled": 0,
        "desiredNumberScheduled": 0,
        "numberReady": 0,
    }


def row(obj: KubeObject, now: datetime) -> list[Any]:
    spec = obj.get("spec") or {}
    status = obj.get("status") or {}
    pod = cells.at(spec, "template", "spec") or {}
    return [
        cells.name(obj),
        *(status.get(key, 0) for key in _COUNTS),
        cells.labels(pod.get("nodeSelector")),
        cells.age(obj, now),
        *cells.containers(pod),
        cells.selector(spec.get("selector")),
    ]


def validate_create(obj: KubeObject) -> list[FieldError]:
    spec = obj.get("spec") or {}
    errors = validate_selector_and_template(spec, "daemonset")
    errors += not_negative_fields(spec, "spec", "minReadySeconds", "revisionHistoryLimit")
    return errors + _strategy(spec.get("updateStrategy") or {})


def _strategy(strategy: dict[str, Any]) -> list[FieldError]:
    kind = strategy.get("type")
    rolling = strategy.get("rollingUpdate")
    path = "spec.updateStrategy"
    if kind == "OnDelete":
        return []
    if kind != "RollingUpdate":
        return [not_supported(path, strategy, ("OnDelete", "RollingUpdate"))]
    if rolling is None:
        return [required(f"{path}.rollingUpdate")]
    path += ".rollingUpdate"
    unavailable = rolling.get("maxUnavailable")
    surge = rolling.get("maxSurge")
    errors = int_or_percent(f"{path}.maxUnavailable", unavailable)
    errors += int_or_percent(f"{path}.maxSurge", surge)
    if as_number(unavailable) and as_number(surge):
        errors.append(
            invalid(f"{path}.maxSurge", surge, "may not be set when maxUnavailable is non-zero"),
        )
    if not as_number(unavailable) and not as_number(surge):
        errors.append(required(f"{path}.maxUnavailable", "cannot be 0 when maxSurge is 0"))
    errors += at_most_all(f"{path}.maxUnavailable", unavailable)
    return errors + at_most_all(f"{path}.maxSurge", surge)


def validate_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    return validate_create(new) + selector_is_immutable(new, old)


def validate_status_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    return not_negative_fields(
        new.get("status") or {},
        "status",
        *_COUNTS,
        "numberMisscheduled",
        "numberUnavailable",
    )


KIND = KindSpec(
    resource=DAEMONSETS,
    singular="daemonset",
    generation=True,
    short_names=("ds",),
    categories=("all",),
    subresources=("status",),
    default=default,
    prepare_create=prepare_create,
    prepare_update=keep_status,
    prepare_status_update=keep_all_but_status,
    validate_create=validate_create,
    validate_update=validate_update,
    validate_status_update=validate_status_update,
    columns=COLUMNS,
    row=row,
)
