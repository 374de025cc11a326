"""HorizontalPodAutoscaler (autoscaling/v2, and v1 by conversion): pkg/apis/autoscaling/validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from kubewire.components.apiserver.kinds import cells
from kubewire.components.apiserver.kinds.fielderrors import (
    if_one_of,
    invalid,
    not_negative,
    not_supported,
    one_of,
    required,
)
from kubewire.components.apiserver.kinds.spec import Column, FieldError, KindSpec, Storage
from kubewire.components.apiserver.kinds.strategy import keep_all_but_status, keep_status
from kubewire.components.apiserver.kinds.workloads import autoscalerversions
from kubewire.components.kubeapi.resources import (
    HORIZONTALPODAUTOSCALERS,
    KubeObject,
    Resource,
)

HORIZONTALPODAUTOSCALERS_V1: Resource[KubeObject] = Resource(
    "autoscaling", "v1", "horizontalpodautoscalers", "HorizontalPodAutoscaler"
)

_MOST = 2
_LONGEST_WINDOW = 3600
_LONGEST_PERIOD = 1800
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


def validate_create(obj: KubeObject) -> list[FieldError]:
    spec = obj.get("spec") or {}
    least = spec.get("minReplicas", 1)
    most = spec.get("maxReplicas") or 0
    errors = []
    if least < 1:
        text = "must be greater than or equal to 1"
        errors.append(invalid("spec.minReplicas", least, text))
    if most < 1:
        errors.append(invalid("spec.maxReplicas", most, "must be greater than 0"))
    if most < least:
        text = "must be greater than or equal to `minReplicas`"
        errors.append(invalid("spec.maxReplicas", most, text))
    reference = spec.get("scaleTargetRef") or {}
    for key in ("kind", "name"):
        if not reference.get(key):
            errors.append(required(f"spec.scaleTargetRef.{key}"))
    for index, metric in enumerate(spec.get("metrics") or ()):
        errors += _metric(metric, f"spec.metrics[{index}]")
    for direction, rules in (spec.get("behavior") or {}).items():
        errors += _rules(rules or {}, f"spec.behavior.{direction}")
    return errors


def validate_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    return validate_create(new)


def _metric(metric: Mapping[str, Any], path: str) -> list[FieldError]:
    kind = metric.get("type") or ""
    if not kind:
        return [required(f"{path}.type", "must specify a metric source type")]
    if kind not in _SOURCES:
        return [not_supported(f"{path}.type", kind, sorted(_SOURCES))]
    key = _SOURCES[kind]
    source = metric.get(key)
    if source is None:
        text = "must populate information for the given metric source"
        return [required(f"{path}.{key}", text)]
    errors = []
    if key in ("resource", "containerResource") and not source.get("name"):
        errors.append(required(f"{path}.{key}.name", "must specify a resource name"))
    if key == "containerResource" and not source.get("container"):
        errors.append(required(f"{path}.{key}.container", "must specify a container"))
    target = source.get("target") or {}
    values = [target.get(name) for name in ("averageUtilization", "averageValue", "value")]
    if not target.get("type"):
        errors.append(required(f"{path}.{key}.target.type", "must specify a metric target type"))
    if all(value is None for value in values):
        text = "must set either a target raw value or a target utilization"
        errors.append(required(f"{path}.{key}.target.averageUtilization", text))
    if values[0] is not None and values[0] < 1:
        at = f"{path}.{key}.target.averageUtilization"
        errors.append(invalid(at, values[0], "must be greater than 0"))
    return errors


def _rules(rules: Mapping[str, Any], path: str) -> list[FieldError]:
    errors = []
    window = rules.get("stabilizationWindowSeconds")
    if window is not None:
        errors += not_negative(f"{path}.stabilizationWindowSeconds", window)
        if window > _LONGEST_WINDOW:
            text = f"must be less than or equal to {_LONGEST_WINDOW}"
            errors.append(invalid(f"{path}.stabilizationWindowSeconds", window, text))
    choice = rules.get("selectPolicy")
    errors += if_one_of(f"{path}.selectPolicy", choice, ("Disabled", "Max", "Min"))
    for index, policy in enumerate(rules.get("policies") or ()):
        at = f"{path}.policies[{index}]"
        errors += one_of(f"{at}.type", policy.get("type"), ("Percent", "Pods"))
        for key in ("value", "periodSeconds"):
            if policy.get(key, 0) <= 0:
                errors.append(
                    invalid(f"{at}.{key}", policy.get(key, 0), "must be greater than zero")
                )
        if policy.get("periodSeconds", 0) > _LONGEST_PERIOD:
            text = f"must be less than or equal to {_LONGEST_PERIOD}"
            errors.append(invalid(f"{at}.periodSeconds", policy["periodSeconds"], text))
    return errors


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
    validate_create=validate_create,
    validate_update=validate_update,
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

KIND_V1 = replace(
    KIND,
    resource=HORIZONTALPODAUTOSCALERS_V1,
    row=lambda obj, now: row(autoscalerversions.to_v2(obj), now),
    storage=Storage(
        "horizontalpodautoscalers.autoscaling",
        "autoscaling/v2",
        autoscalerversions.to_v2,
        autoscalerversions.from_v2,
    ),
)
