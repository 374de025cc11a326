"""HorizontalPodAutoscaler (autoscaling/v2): it is stored, and no controller acts on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from kubewire.components.apiserver.kinds import cells
from kubewire.components.apiserver.kinds.spec import Column, KindSpec
from kubewire.components.apiserver.kinds.strategy import keep_all_but_status, keep_status
from kubewire.components.kubeapi.resources import KubeObject, Resource

HORIZONTALPODAUTOSCALERS: Resource[KubeObject] = Resource(
    "autoscaling",
    "v2",
    "horizontalpodautoscalers",
    "HorizontalPodAutoscaler",
)

_MOST = 2
_SOURCES = {
    "External": "external",
    "Pods": "pods",
    "Object": "object",
    "Resource": "resource",
    "ContainerResource": "containerResource",
}


def default(obj: KubeObject) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("minReplicas", 1)
    if not spec.get("metrics"):
        target = {"type": "Utilization", "averageUtilization": 80}
        spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]


def prepare_create(obj: KubeObject) -> None:
    obj["status"] = {"desiredReplicas": 0}


def row(obj: KubeObject, now: datetime) -> list[Any]:
    spec = obj.get("spec") or {}
    status = obj.get("status") or {}
    reference = spec.get("scaleTargetRef") or {}
    return [
        cells.name(obj),
        f"{reference.get('kind', '')}/{reference.get('name', '')}",
        _targets(spec.get("metrics") or [], status.get("currentMetrics") or []),
        str(spec.get("minReplicas", cells.UNSET)),
        spec.get("maxReplicas", 0),
        status.get("currentReplicas", 0),
        cells.age(obj, now),
    ]


def _targets(metrics: Sequence[Mapping[str, Any]], current: Sequence[Mapping[str, Any]]) -> str:
    if not metrics:
        return cells.NONE
    texts = []
    for index, metric in enumerate(metrics):
        texts.append(_target(metric, current[index] if index < len(current) else {}))
    more = f" + {len(texts) - _MOST} more..." if len(texts) > _MOST else ""
    return ", ".join(texts[:_MOST]) + more


def _target(metric: Mapping[str, Any], current: Mapping[str, Any]) -> str:
    key = _SOURCES.get(metric.get("type", ""))
    if key is None:
        return "<unknown type>"
    source = metric.get(key) or {}
    now = cells.at(current, key, "current") or {}
    target = source.get("target") or {}
    name = f"{source.get('name', '')}: " if key in ("resource", "containerResource") else ""
    if target.get("averageValue") is not None:
        average = " (avg)" if key in ("external", "object") else ""
        return f"{name}{now.get('averageValue', cells.UNKNOWN)}/{target['averageValue']}{average}"
    if name:
        used = now.get("averageUtilization")
        wanted = target.get("averageUtilization")
        have = cells.UNKNOWN if used is None else f"{used}%"
        return f"{name}{have}/{'<auto>' if wanted is None else f'{wanted}%'}"
    return f"{now.get('value', cells.UNKNOWN)}/{target.get('value', '')}"


KIND = KindSpec(
    resource=HORIZONTALPODAUTOSCALERS,
    singular="horizontalpodautoscaler",
    short_names=("hpa",),
    categories=("all",),
    subresources=("status",),
    default=default,
    prepare_create=prepare_create,
    prepare_update=keep_status,
    prepare_status_update=keep_all_but_status,
    columns=(
        cells.NAME,
        Column("Reference", "string", "", "The object that is scaled."),
        Column("Targets", "string", "", "Current and wanted value of each metric."),
        Column("MinPods", "string", "", "The minimum number of pods."),
        Column("MaxPods", "string", "", "The maximum number of pods."),
        Column("Replicas", "string", "", "The current number of pods."),
        cells.AGE,
    ),
    row=row,
)
