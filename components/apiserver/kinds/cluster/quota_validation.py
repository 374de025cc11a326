"""Validates ResourceQuotas (ValidateResourceQuota of pkg/apis/core/validation)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubewire.components.apiserver.kinds import names
from kubewire.components.apiserver.kinds.fielderrors import by_rule, immutable, invalid, required
from kubewire.components.apiserver.kinds.spec import FieldError
from kubewire.components.kubeapi.quantity import parse_quantity
from kubewire.components.kubeapi.resources import KubeObject

_COUNTED = frozenset(
    (
        "pods",
        "services",
        "services.nodeports",
        "services.loadbalancers",
        "replicationcontrollers",
        "resourcequotas",
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
    )
)
_COMPUTE = frozenset(
    name
    for resource in ("cpu", "memory")
    for name in (resource, f"requests.{resource}", f"limits.{resource}")
)
_STORAGE = frozenset(
    ("ephemeral-storage", "requests.ephemeral-storage", "limits.ephemeral-storage")
)
_STANDARD = _COUNTED | _COMPUTE | _STORAGE | {"requests.storage"}
_WITH_COMPUTE = _COMPUTE | {"pods"}
#: The standard entries that a scope can bound.
_SCOPES: dict[str, frozenset[str]] = {
    "Terminating": _WITH_COMPUTE,
    "NotTerminating": _WITH_COMPUTE,
    "NotBestEffort": _WITH_COMPUTE,
    "PriorityClass": _WITH_COMPUTE,
    "CrossNamespacePodAffinity": _WITH_COMPUTE,
    "BestEffort": frozenset({"pods"}),
    "VolumeAttributesClass": frozenset({"persistentvolumeclaims", "requests.storage"}),
}
_CONFLICTS = (("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating"))
#: Scopes that have no values.
_ONLY_EXISTS = frozenset(_SCOPES) - {"PriorityClass", "VolumeAttributesClass"}
_MUST_EXIST = (
    "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, "
    "ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, "
    "ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"
)


def validate_create(quota: KubeObject) -> list[FieldError]:
    spec = quota.get("spec") or {}
    errors = _amounts(spec.get("hard") or {}, "spec.hard")
    return errors + _scopes(spec) + _selector(spec)


def validate_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    before = sorted((old.get("spec") or {}).get("scopes") or ())
    after = sorted((new.get("spec") or {}).get("scopes") or ())
    return validate_create(new) + immutable("spec.scopes", after, before)


def validate_status_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    state = new.get("status") or {}
    errors = _amounts(state.get("hard") or {}, "status.hard")
    return errors + _amounts(state.get("used") or {}, "status.used")


def _amounts(amounts: Mapping[str, Any], path: str) -> list[FieldError]:
    errors = []
    for name, amount in amounts.items():
        at = f"{path}[{name}]"
        errors += _name(name, at)
        value = parse_quantity(amount)
        if value < 0:
            errors.append(invalid(at, str(amount), names.NOT_NEGATIVE))
        if (name in _COUNTED or _is_extended(name)) and value != int(value):
            errors.append(invalid(at, str(amount), "must be an integer"))
    return errors


def _is_extended(name: str) -> bool:
    return "/" in name and "kubernetes.io/" not in name and not name.startswith("requests.")


def _name(name: str, path: str) -> list[FieldError]:
    errors = by_rule(names.qualified_name, path, name)
    known = name in _STANDARD or name.startswith(("hugepages-", "requests.hugepages-"))
    if not errors and "/" not in name and not known:
        errors.append(invalid(path, name, "must be a standard resource type or fully qualified"))
        errors.append(invalid(path, name, "must be a standard resource for quota"))
    return errors


def _scopes(spec: Mapping[str, Any]) -> list[FieldError]:
    scopes = spec.get("scopes") or []
    errors = []
    for scope in scopes:
        if scope not in _SCOPES:
            errors.append(invalid("spec.scopes", scopes, "unsupported scope"))
        errors += _unbounded(scope, spec, "spec.scopes", scopes)
    for pair in _CONFLICTS:
        if set(pair) <= set(scopes):
            errors.append(invalid("spec.scopes", scopes, "conflicting scopes"))
    return errors


def _unbounded(scope: str, spec: Mapping[str, Any], path: str, value: Any) -> list[FieldError]:
    bounded = _SCOPES.get(scope, frozenset())
    entries = [name for name in spec.get("hard") or {} if name in _STANDARD - bounded]
    return [invalid(path, value, "unsupported scope applied to resource") for _ in entries]


def _selector(spec: Mapping[str, Any]) -> list[FieldError]:
    expressions = (spec.get("scopeSelector") or {}).get("matchExpressions") or []
    path = "spec.scopeSelector.matchExpressions"
    errors = []
    for expression in expressions:
        scope = expression.get("scopeName", "")
        if scope not in _SCOPES:
            errors.append(invalid(f"{path}.scopeName", scope, "unsupported scope"))
        errors += _unbounded(scope, spec, "spec.scopeSelector", spec["scopeSelector"])
        errors += _operator(scope, expression, path)
    return errors


def _operator(scope: str, expression: Mapping[str, Any], path: str) -> list[FieldError]:
    operator = expression.get("operator", "")
    values = expression.get("values") or []
    errors = []
    if scope in _ONLY_EXISTS and operator != "Exists":
        errors.append(invalid(f"{path}.operator", operator, _MUST_EXIST))
    if operator in ("In", "NotIn"):
        if not values:
            text = (
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
            )
            errors.append(required(f"{path}.values", text))
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            text = (
                "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"
            )
            errors.append(invalid(f"{path}.values", values, text))
    else:
        errors.append(invalid(f"{path}.operator", operator, "not a valid selector operator"))
    return errors
