"""Validates environment variables and their sources (ValidateEnv, ValidateEnvFrom).

The references of the downward API follow the same file, pkg/apis/core/validation/validation.go.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from kubewire.components.apiserver.kinds import names
from kubewire.components.apiserver.kinds.fielderrors import (
    by_rule,
    invalid,
    not_supported,
    required,
)
from kubewire.components.apiserver.kinds.spec import FieldError

_ENV_FIELDS = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
)
_ENV_RESOURCES = (
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
)
_HUGE_PAGES = ("limits.hugepages-", "requests.hugepages-")


def validate_environment(variables: Sequence[Mapping[str, Any]], path: str) -> list[FieldError]:
    errors = []
    for index, variable in enumerate(variables):
        at = f"{path}[{index}]"
        name = variable.get("name") or ""
        if name:
            errors += by_rule(names.environment_name, f"{at}.name", name)
        else:
            errors.append(required(f"{at}.name"))
        if variable.get("valueFrom") is not None:
            errors += _value_from(variable, f"{at}.valueFrom")
    return errors


def _value_from(variable: Mapping[str, Any], path: str) -> list[FieldError]:
    source = variable["valueFrom"]
    given = [
        key
        for key in (
            "fieldRef",
            "resourceFieldRef",
            "configMapKeyRef",
            "secretKeyRef",
        )
        if key in source
    ]
    errors = []
    if "fieldRef" in given:
        errors += field_reference(source["fieldRef"], _ENV_FIELDS, f"{path}.fieldRef")
    if "resourceFieldRef" in given:
        errors += resource_reference(
            source["resourceFieldRef"],
            f"{path}.resourceFieldRef",
            in_volume=False,
        )
    for key in ("configMapKeyRef", "secretKeyRef"):
        if key in given:
            errors += _key_reference(source[key], f"{path}.{key}")
    if not given and "fileKeyRef" not in source:
        text = "must specify one of: "
        text += "`fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
        errors.append(invalid(path, "", text))
    elif variable.get("value"):
        errors.append(invalid(path, "", "may not be specified when `value` is not empty"))
    elif len(given) > 1:
        errors.append(invalid(path, "", "may not have more than one field specified at a time"))
    return errors


def field_reference(
    reference: Mapping[str, Any],
    allowed: Sequence[str],
    path: str,
) -> list[FieldError]:
    """Validates a field of the downward API: `metadata.name`, `metadata.labels['app']`."""
    name = reference.get("fieldPath") or ""
    if not reference.get("apiVersion"):
        return [required(f"{path}.apiVersion")]
    if not name:
        return [required(f"{path}.fieldPath")]
    match = re.fullmatch(r"(.*)\['([^']*)'\]", name)
    if match:
        if match[1] not in ("metadata.annotations", "metadata.labels"):
            return [invalid(path, match[1], "does not support subscript")]
        key = match[2].lower() if match[1] == "metadata.annotations" else match[2]
        return by_rule(names.qualified_name, path, key)
    if not name.startswith(("metadata.", "spec.", "status.")):
        text = f"error converting fieldPath: field label not supported: {name}"
        return [invalid(f"{path}.fieldPath", name, text)]
    return [] if name in allowed else [not_supported(f"{path}.fieldPath", name, allowed)]


def resource_reference(
    reference: Mapping[str, Any],
    path: str,
    *,
    in_volume: bool,
) -> list[FieldError]:
    resource = reference.get("resource") or ""
    if in_volume and not reference.get("containerName"):
        return [required(f"{path}.containerName")]
    if not resource:
        return [required(f"{path}.resource")]
    if resource in _ENV_RESOURCES or resource.startswith(_HUGE_PAGES):
        return []
    return [not_supported(f"{path}.resource", resource, _ENV_RESOURCES)]


def _key_reference(reference: Mapping[str, Any], path: str) -> list[FieldError]:
    errors = by_rule(names.dns1123_subdomain, f"{path}.name", reference.get("name") or "")
    key = reference.get("key") or ""
    if not key:
        return [*errors, required(f"{path}.key")]
    return errors + by_rule(names.config_map_key, f"{path}.key", key)


def validate_environment_sources(
    sources: Sequence[Mapping[str, Any]],
    path: str,
) -> list[FieldError]:
    errors = []
    for index, source in enumerate(sources):
        at = f"{path}[{index}]"
        if source.get("prefix"):
            errors += by_rule(names.environment_name, f"{at}.prefix", source["prefix"])
        given = [key for key in ("configMapRef", "secretRef") if source.get(key) is not None]
        for key in given:
            name = source[key].get("name") or ""
            if name:
                errors += by_rule(names.dns1123_subdomain, f"{at}.{key}.name", name)
            else:
                errors.append(required(f"{at}.{key}.name"))
        if not given:
            errors.append(invalid(at, "", "must specify one of: `configMapRef` or `secretRef`"))
        elif len(given) > 1:
            errors.append(invalid(at, "", "may not have more than one field specified at a time"))
    return errors
