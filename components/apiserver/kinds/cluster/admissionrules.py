"""Validates the rules of webhooks and of admission policies (RuleWithOperations)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kubewire.components.apiserver.kinds.fielderrors import invalid, not_supported, required
from kubewire.components.apiserver.kinds.spec import FieldError

_OPERATIONS = ("*", "CONNECT", "CREATE", "DELETE", "UPDATE")
_SCOPES = ("*", "Cluster", "Namespaced")


def validate(rule: Mapping[str, Any], path: str) -> list[FieldError]:
    """Validates operations, groups, versions, resources and scope."""
    operations = rule.get("operations") or []
    errors = _list(operations, f"{path}.operations", "operations")
    for index, operation in enumerate(operations):
        if operation not in _OPERATIONS:
            errors.append(not_supported(f"{path}.operations[{index}]", operation, _OPERATIONS))
    errors += _list(rule.get("apiGroups") or [], f"{path}.apiGroups", "API groups")
    versions = rule.get("apiVersions") or []
    errors += _list(versions, f"{path}.apiVersions", "API versions")
    errors += [
        required(f"{path}.apiVersions[{index}]")
        for index, version in enumerate(versions)
        if not version
    ]
    errors += _resources(rule.get("resources") or [], f"{path}.resources")
    if (scope := rule.get("scope")) is not None and scope not in _SCOPES:
        errors.append(not_supported(f"{path}.scope", scope, _SCOPES))
    return errors


def _list(items: Sequence[str], path: str, what: str) -> list[FieldError]:
    if not items:
        return [required(path)]
    if len(items) > 1 and "*" in items:
        return [invalid(path, items, f"if '*' is present, must not specify other {what}")]
    return []


def _resources(resources: Sequence[str], path: str) -> list[FieldError]:
    if not resources:
        return [required(path)]
    errors: list[FieldError] = []
    whole: set[str] = set()
    everywhere: set[str] = set()
    for index, item in enumerate(resources):
        at = f"{path}[{index}]"
        plural, slash, subresource = item.partition("/")
        if not item:
            errors.append(required(at))
        if not slash:
            continue
        if plural in whole:
            text = f"if '{plural}/*' is present, must not specify {item}"
            errors.append(invalid(at, item, text))
        if subresource in everywhere:
            text = f"if '*/{subresource}' is present, must not specify {item}"
            errors.append(invalid(at, item, text))
        whole |= {plural} if subresource == "*" else set()
        everywhere |= {subresource} if plural == "*" else set()
    if len(resources) > 1 and "*/*" in resources:
        text = "if '*/*' is present, must not specify other resources"
        errors.append(invalid(path, resources, text))
    plain = [item for item in resources if "/" not in item and item != "*"]
    if "*" in resources and plain:
        text = "if '*' is present, must not specify other resources without subresources"
        errors.append(invalid(path, resources, text))
    return errors
