"""PodDisruptionBudget (policy/v1): pkg/apis/policy/validation,
pkg/registry/policy/poddisruptionbudget.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kubewire.components.apiserver.kinds import cells, names
from kubewire.components.apiserver.kinds.fielderrors import if_one_of, invalid
from kubewire.components.apiserver.kinds.labelselectors import validate_selector
from kubewire.components.apiserver.kinds.spec import Column, FieldError, KindSpec
from kubewire.components.apiserver.kinds.strategy import (
    empty_status,
    keep_all_but_status,
    keep_status,
)
from kubewire.components.kubeapi.resources import PODDISRUPTIONBUDGETS, KubeObject

COLUMNS = (
    cells.NAME,
    Column("Min Available", "string", "", "The minimum number of pods that must be available."),
    Column("Max Unavailable", "string", "", "The maximum number of pods that may be unavailable."),
    Column(
        "Allowed Disruptions",
        "integer",
        "",
        "Calculated number of pods that may be disrupted at this time.",
    ),
    cells.AGE,
)


def validate_create(obj: KubeObject) -> list[FieldError]:
    spec = obj.get("spec") or {}
    errors = []
    if spec.get("minAvailable") is not None and spec.get("maxUnavailable") is not None:
        errors.append(invalid("spec", spec, "minAvailable and maxUnavailable cannot be both set"))
    for key in ("minAvailable", "maxUnavailable"):
        if spec.get(key) is not None:
            errors += int_or_percent(f"spec.{key}", spec[key])
    errors += validate_selector(spec.get("selector"), "spec.selector")
    policies = ("AlwaysAllow", "IfHealthyBudget")
    return errors + if_one_of(
        "spec.unhealthyPodEvictionPolicy",
        spec.get("unhealthyPodEvictionPolicy"),
        policies,
    )


def int_or_percent(path: str, value: int | str) -> list[FieldError]:
    """Validates a non-negative number or a percentage of at most 100."""
    if isinstance(value, int):
        return [invalid(path, value, names.NOT_NEGATIVE)] if value < 0 else []
    wrong = names.percent(value)
    if wrong:
        return [invalid(path, value, text) for text in wrong]
    return [invalid(path, value, "must not be greater than 100%")] if int(value[:-1]) > 100 else []


def validate_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    return validate_create(new)


def row(obj: KubeObject, now: datetime) -> list[Any]:
    spec = obj.get("spec") or {}
    return [
        cells.name(obj),
        str(spec.get("minAvailable", "N/A")),
        str(spec.get("maxUnavailable", "N/A")),
        cells.at(obj, "status", "disruptionsAllowed") or 0,
        cells.age(obj, now),
    ]


KIND = KindSpec(
    resource=PODDISRUPTIONBUDGETS,
    singular="poddisruptionbudget",
    generation=True,
    short_names=("pdb",),
    subresources=("status",),
    prepare_create=empty_status,
    prepare_update=keep_status,
    prepare_status_update=keep_all_but_status,
    validate_create=validate_create,
    validate_update=validate_update,
    columns=COLUMNS,
    row=row,
    unconditional_update=False,
)
