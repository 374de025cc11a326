"""DaemonSet (apps/v1): k8s.io/kubernetes/pkg/registry/apps/daemonset."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from components.apiserver.kinds import cells
from components.apiserver.kinds.pod_defaults import default_pod_template
from components.apiserver.kinds.spec import Column, KindSpec
from components.apiserver.kinds.strategy import keep_all_but_status, keep_status
from components.machinery.resources import DAEMONSETS, KubeObject

COLUMNS = (
    cells.NAME,
    Column("Desired", "integer", "", "Number of nodes that should run the pod."),
    Column("Current", "integer", "", "Number of nodes that run it."),
    Column("Ready", "integer", "", "Number of nodes whose pod is ready."),
    Column("Up-to-date", "integer", "", "Number of nodes that run the wanted template."),
    Column("Available", "integer", "", "Number of nodes whose pod has been ready for minReadySeconds."),
    Column("Node Selector", "string", "", "Labels of the nodes it is for."),
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
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    pod = cells.at(spec, "template", "spec") or {}
    return [
        cells.name(obj),
        *(status.get(key, 0) for key in _COUNTS),
        cells.labels(pod.get("nodeSelector")),
        cells.age(obj, now),
        *cells.containers(pod),
        cells.selector(spec.get("selector")),
    ]


KIND = KindSpec(
    resource=DAEMONSETS,
    singular="daemonset",
    short_names=("ds",),
    categories=("all",),
    subresources=("status",),
    default=default,
    prepare_create=prepare_create,
    prepare_update=keep_status,
    prepare_status_update=keep_all_but_status,
    columns=COLUMNS,
    row=row,
)
