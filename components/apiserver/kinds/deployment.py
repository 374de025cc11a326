"""Deployment (apps/v1): k8s.io/kubernetes/pkg/registry/apps/deployment, pkg/apis/apps/v1/defaults.go."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from components.apiserver.kinds import cells
from components.apiserver.kinds.pod_defaults import default_pod_template
from components.apiserver.kinds.spec import Column, KindSpec, ScalePaths
from components.apiserver.kinds.strategy import empty_status, keep_all_but_status_and_labels, keep_status
from components.machinery.resources import DEPLOYMENTS, KubeObject
from components.machinery.selectors import LabelSelector

COLUMNS = (
    cells.NAME,
    Column("Ready", "string", "", "Number of the pod with ready state"),
    Column("Up-to-date", "string", "", "Number of pods that have the wanted template."),
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
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    return [
        cells.name(obj),
        f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}",
        status.get("updatedReplicas", 0),
        status.get("availableReplicas", 0),
        cells.age(obj, now),
        *cells.containers(cells.at(spec, "template", "spec") or {}),
        str(LabelSelector.from_object(spec.get("selector"))),
    ]


KIND = KindSpec(
    resource=DEPLOYMENTS,
    singular="deployment",
    short_names=("deploy",),
    categories=("all",),
    subresources=("status", "scale"),
    default=default,
    prepare_create=empty_status,
    prepare_update=keep_status,
    prepare_status_update=keep_all_but_status_and_labels,
    columns=COLUMNS,
    row=row,
    scale=ScalePaths(".spec.replicas", ".status.replicas", ".spec.selector"),
)
