"""Validates requests and limits (ValidateContainerResourceRequirements).

The source is pkg/apis/core/validation/validation.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubewire.components.apiserver.kinds import names
from kubewire.components.apiserver.kinds.fielderrors import by_rule, invalid
from kubewire.components.apiserver.kinds.spec import FieldError
from kubewire.components.kubeapi.quantity import parse_quantity

_STANDARD = frozenset({"cpu", "ephemeral-storage", "memory"})


def validate_requirements(resources: Mapping[str, Any], path: str) -> list[FieldError]:
    limits = resources.get("limits") or {}
    requests = resources.get("requests") or {}
    errors = []
    for name, amount in limits.items():
        errors += _amount(name, amount, f"{path}.limits[{name}]")
    for name, amount in requests.items():
        at = f"{path}.requests[{name}]"
        wrong = _amount(name, amount, at)
        errors += wrong
        if wrong or name not in limits or _parsed(limits[name]) is None:
            continue
        request = _parsed(amount)
        limit = _parsed(limits[name])
        if "/" in name or name.startswith("hugepages-"):
            if request != limit:
                text = f"must be equal to {name} limit of {limits[name]}"
                errors.append(invalid(f"{path}.requests", str(amount), text))
        elif request is not None and limit is not None and request > limit:
            text = f"must be less than or equal to {name} limit of {limits[name]}"
            errors.append(invalid(f"{path}.requests", str(amount), text))
    return errors


def _amount(name: str, amount: Any, path: str) -> list[FieldError]:
    errors = by_rule(names.qualified_name, path, name)
    if errors:
        return errors
    if "/" not in name and name not in _STANDARD and not name.startswith("hugepages-"):
        errors.append(invalid(path, name, "must be a standard resource type or fully qualified"))
        errors.append(invalid(path, name, "must be a standard resource for containers"))
    value = _parsed(amount)
    if value is not None and value < 0:
        errors.append(invalid(path, str(amount), names.NOT_NEGATIVE))
    if value is not None and "/" in name and value != int(value):
        errors.append(invalid(path, str(amount), "must be an integer"))
    return errors


def _parsed(amount: Any) -> Any:
    try:
        return parse_quantity(amount)
    except ValueError:
        return None
