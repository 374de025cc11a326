"""Validates LimitRanges (ValidateLimitRange of pkg/apis/core/validation)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubewire.components.apiserver.kinds import names
from kubewire.components.apiserver.kinds.fielderrors import (
    by_rule,
    duplicate,
    forbidden,
    invalid,
    required,
)
from kubewire.components.apiserver.kinds.spec import FieldError
from kubewire.components.kubeapi.quantity import parse_quantity
from kubewire.components.kubeapi.resources import KubeObject

_TYPES = ("Pod", "Container", "PersistentVolumeClaim")
_CONTAINERS = frozenset(("cpu", "memory", "ephemeral-storage"))
_FIELDS = ("max", "min", "default", "defaultRequest", "maxLimitRequestRatio")

#: A pair of bounds of which the first may not be greater: the fields with their names in the text,
#: and the field of the error.
_ORDER = (
    ("min", "min", "max", "max", "min"),
    ("min", "min", "defaultRequest", "default request", "defaultRequest"),
    ("defaultRequest", "default request", "max", "max", "defaultRequest"),
    ("defaultRequest", "default request", "default", "default limit", "defaultRequest"),
    ("min", "min", "default", "default", "default"),
    ("default", "default", "max", "max", "default"),
)


def validate_create(limits: KubeObject) -> list[FieldError]:
    errors = []
    seen = set[str]()
    for index, item in enumerate((limits.get("spec") or {}).get("limits") or ()):
        path = f"spec.limits[{index}]"
        kind = item.get("type", "")
        errors += _type(kind, f"{path}.type")
        if kind in seen:
            errors.append(duplicate(f"{path}.type", kind))
        seen.add(kind)
        errors += _item(item, kind, path)
    return errors


def validate_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    return validate_create(new)


def _type(kind: str, path: str) -> list[FieldError]:
    errors = by_rule(names.qualified_name, path, kind)
    if not errors and "/" not in kind and kind not in _TYPES:
        errors.append(invalid(path, kind, "must be a standard limit type or fully qualified"))
    return errors


def _item(item: Mapping[str, Any], kind: str, path: str) -> list[FieldError]:
    errors = []
    for field in _FIELDS:
        given = item.get(field) or {}
        if kind == "Pod" and field in ("default", "defaultRequest"):
            text = "may not be specified when `type` is 'Pod'"
            errors += [forbidden(f"{path}.{field}", text)] if given else []
            continue
        for name in given:
            errors += _name(kind, name, f"{path}.{field}[{name}]")
    bounds = (item.get("min") or {}), (item.get("max") or {})
    if kind == "PersistentVolumeClaim" and not any("storage" in bound for bound in bounds):
        text = "either minimum or maximum storage value is required, but neither was provided"
        errors.append(required(f"{path}.limits", text))
    every = {name for field in _FIELDS for name in item.get(field) or ()}
    for name in sorted(every):
        errors += _order(item, name, path) + _ratio(item, name, path)
    return errors


def _name(kind: str, name: str, path: str) -> list[FieldError]:
    errors = by_rule(names.qualified_name, path, name)
    if errors or "/" in name or name.startswith("hugepages-"):
        return errors
    if kind in ("Pod", "Container") and name not in _CONTAINERS:
        if name != "storage":
            text = "must be a standard resource type or fully qualified"
            errors.append(invalid(path, name, text))
        errors.append(invalid(path, name, "must be a standard resource for containers"))
    return errors


def _order(item: Mapping[str, Any], name: str, path: str) -> list[FieldError]:
    errors = []
    for low, low_text, high, high_text, field in _ORDER:
        least = (item.get(low) or {}).get(name)
        most = (item.get(high) or {}).get(name)
        if least is None or most is None or parse_quantity(least) <= parse_quantity(most):
            continue
        text = f"{low_text} value {least} is greater than {high_text} value {most}"
        errors.append(invalid(f"{path}.{field}[{name}]", str(item[field][name]), text))
    return errors


def _ratio(item: Mapping[str, Any], name: str, path: str) -> list[FieldError]:
    ratio = (item.get("maxLimitRequestRatio") or {}).get(name)
    if ratio is None:
        return []
    at = f"{path}.maxLimitRequestRatio[{name}]"
    if parse_quantity(ratio) < 1:
        return [invalid(at, str(ratio), f"ratio {ratio} is less than 1")]
    least = parse_quantity((item.get("min") or {}).get(name, 0))
    most = parse_quantity((item.get("max") or {}).get(name, 0))
    if least and most and parse_quantity(ratio) > most / least:
        text = f"ratio {ratio} is greater than max/min = {most / least:.6f}"
        return [invalid(at, str(ratio), text)]
    return []
