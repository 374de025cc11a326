"""Fields that volumes and claims share: their cells, access modes, sizes and modes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kubewire.components.apiserver.kinds import cells, names
from kubewire.components.apiserver.kinds.fielderrors import (
    by_rule,
    forbidden,
    if_one_of,
    invalid,
    not_supported,
)
from kubewire.components.apiserver.kinds.spec import FieldError
from kubewire.components.kubeapi.quantity import parse_quantity
from kubewire.components.kubeapi.resources import KubeObject

_MODES = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}


def access_modes(modes: Sequence[str] | None) -> str:
    return ",".join(short for mode, short in _MODES.items() if mode in (modes or ()))


def phase(obj: KubeObject) -> str:
    if obj["metadata"].get("deletionTimestamp"):
        return "Terminating"
    return cells.at(obj, "status", "phase") or ""


def pending(obj: KubeObject) -> None:
    obj["status"] = {"phase": "Pending"}


def validate_common(spec: Mapping[str, Any]) -> list[FieldError]:
    """Validates accessModes, storageClassName and volumeMode."""
    errors = []
    modes = spec.get("accessModes") or []
    for mode in modes:
        if mode not in _MODES:
            errors.append(not_supported("spec.accessModes", mode, sorted(_MODES)))
    if "ReadWriteOncePod" in modes and len(modes) > 1:
        text = "may not use ReadWriteOncePod with other access modes"
        errors.append(forbidden("spec.accessModes", text))
    for key in ("storageClassName", "volumeAttributesClassName"):
        if spec.get(key):
            errors += by_rule(names.dns1123_subdomain, f"spec.{key}", spec[key])
    return errors + if_one_of("spec.volumeMode", spec.get("volumeMode"), ("Block", "Filesystem"))


def positive_amount(path: str, amount: Any) -> list[FieldError]:
    try:
        if parse_quantity(amount) > 0:
            return []
    except ValueError:
        return []
    return [invalid(path, str(amount), names.POSITIVE)]
