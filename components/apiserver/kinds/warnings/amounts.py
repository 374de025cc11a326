"""Warnings about amounts of bytes that are no whole number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubewire.components.kubeapi.quantity import milli_value


def fraction_warnings(amounts: Mapping[str, Any] | None, path: str, *names: str) -> list[str]:
    """About the amounts of these resources, such as memory: 128m, which is not 128 MiB."""
    return [
        f'{path}[{name}]: fractional byte value "{amounts[name]}" is invalid, must be an integer'
        for name in names
        if amounts and name in amounts and milli_value(amounts[name]) % 1000
    ]


def claim_warnings(spec: Mapping[str, Any], path: str) -> list[str]:
    """About a PersistentVolumeClaimSpec (pkg/api/persistentvolumeclaim/util.go)."""
    resources = spec.get("resources") or {}
    warnings = fraction_warnings(resources.get("requests"), f"{path}.resources.requests", "storage")
    return warnings + fraction_warnings(
        resources.get("limits"), f"{path}.resources.limits", "storage"
    )
