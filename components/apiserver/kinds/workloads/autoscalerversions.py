"""Converts HorizontalPodAutoscalers between autoscaling/v1 and v2, which is stored
(pkg/apis/autoscaling/v1/conversion.go).

v1 knows one metric, the use of the processor in percent of requests. What it cannot say it carries
in annotations, as JSON.
"""

from __future__ import annotations

from typing import Any

import orjson

from kubewire.components.kubeapi.resources import KubeObject

_PREFIX = "autoscaling.alpha.kubernetes.io/"
#: Annotation -> the part of the object in v2 that it carries.
_CARRIED = {
    "metrics": ("spec", "metrics"),
    "behavior": ("spec", "behavior"),
    "current-metrics": ("status", "currentMetrics"),
    "conditions": ("status", "conditions"),
}


def _is_cpu(metric: dict[str, Any]) -> bool:
    source = metric.get("resource") or {}
    part = source.get("target") or source.get("current") or {}
    return source.get("name") == "cpu" and part.get("averageUtilization") is not None


def from_v2(obj: KubeObject) -> KubeObject:
    spec = dict(obj.get("spec") or {})
    status = dict(obj.get("status") or {})
    notes = dict(obj["metadata"].get("annotations") or {})
    metrics = spec.pop("metrics", None) or []
    cpu = next((item for item in metrics if _is_cpu(item)), None)
    if cpu is not None:
        spec["targetCPUUtilizationPercentage"] = cpu["resource"]["target"]["averageUtilization"]
    _carry(notes, "metrics", [item for item in metrics if item is not cpu])
    _carry(notes, "behavior", spec.pop("behavior", None))
    shown = status.pop("currentMetrics", None) or []
    cpu = next((item for item in shown if _is_cpu(item)), None)
    if cpu is not None:
        status["currentCPUUtilizationPercentage"] = cpu["resource"]["current"]["averageUtilization"]
    _carry(notes, "current-metrics", shown)
    _carry(notes, "conditions", status.pop("conditions", None))
    return _converted(obj, "autoscaling/v1", notes, spec, status)


def to_v2(obj: KubeObject) -> KubeObject:
    spec = dict(obj.get("spec") or {})
    status = dict(obj.get("status") or {})
    notes = dict(obj["metadata"].get("annotations") or {})
    for name, (part, field) in _CARRIED.items():
        text = notes.pop(_PREFIX + name, None)
        carried = _parsed(text)
        if carried is not None:
            (spec if part == "spec" else status)[field] = carried
    percent = spec.pop("targetCPUUtilizationPercentage", None)
    status.pop("currentCPUUtilizationPercentage", None)
    if percent is not None:
        target = {"type": "Utilization", "averageUtilization": percent}
        cpu = {"type": "Resource", "resource": {"name": "cpu", "target": target}}
        spec["metrics"] = [cpu, *(spec.get("metrics") or [])]
    return _converted(obj, "autoscaling/v2", notes, spec, status)


def _carry(notes: dict[str, str], name: str, value: Any) -> None:
    if value:
        notes[_PREFIX + name] = orjson.dumps(value).decode()


def _parsed(text: str | None) -> Any:
    """None for what is no JSON, which upstream drops too."""
    try:
        return orjson.loads(text) if text else None
    except orjson.JSONDecodeError:
        return None


def _converted(
    obj: KubeObject,
    version: str,
    notes: dict[str, str],
    spec: KubeObject,
    status: KubeObject,
) -> KubeObject:
    metadata = {key: item for key, item in obj["metadata"].items() if key != "annotations"}
    if notes:
        metadata["annotations"] = notes
    fresh = {**obj, "apiVersion": version, "metadata": metadata, "spec": spec}
    if "status" in obj or status:
        fresh["status"] = status
    return fresh
