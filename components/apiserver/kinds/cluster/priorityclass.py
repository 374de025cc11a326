"""PriorityClass (scheduling.k8s.io/v1): pkg/apis/scheduling/validation."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kubewire.components.apiserver.kinds import cells
from kubewire.components.apiserver.kinds.fielderrors import forbidden, invalid
from kubewire.components.apiserver.kinds.spec import Column, FieldError, KindSpec
from kubewire.components.kubeapi.resources import KubeObject, Resource

PRIORITYCLASSES: Resource[KubeObject] = Resource(
    "scheduling.k8s.io",
    "v1",
    "priorityclasses",
    "PriorityClass",
    namespaced=False,
)

_HIGHEST_USER_PRIORITY = 1_000_000_000
#: The classes that every cluster has.
SYSTEM_PRIORITIES = {
    "system-cluster-critical": 2_000_000_000,
    "system-node-critical": 2_000_001_000,
}


def default(obj: KubeObject) -> None:
    if not obj.get("preemptionPolicy"):
        obj["preemptionPolicy"] = "PreemptLowerPriority"


def validate_create(obj: KubeObject) -> list[FieldError]:
    name = obj["metadata"].get("name", "")
    value = obj.get("value", 0)
    if name.startswith("system-"):
        if name in SYSTEM_PRIORITIES:
            return []
        text = "priority class names with 'system-' prefix are reserved for system use only"
        return [
            forbidden(
                "metadata.name",
                f"{text}. error: {name} is not a known system priority class",
            )
        ]
    if value > _HIGHEST_USER_PRIORITY:
        text = f"maximum allowed value of a user defined priority is {_HIGHEST_USER_PRIORITY}"
        return [forbidden("value", text)]
    return []


def validate_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    errors = []
    if new.get("value", 0) != old.get("value", 0):
        errors.append(forbidden("value", "may not be changed in an update."))
    if new.get("preemptionPolicy") != old.get("preemptionPolicy"):
        errors.append(
            invalid("preemptionPolicy", new.get("preemptionPolicy"), "field is immutable"),
        )
    return errors


def row(obj: KubeObject, now: datetime) -> list[Any]:
    return [
        cells.name(obj),
        obj.get("value", 0),
        bool(obj.get("globalDefault")),
        cells.age(obj, now),
        obj.get("preemptionPolicy", "PreemptLowerPriority"),
    ]


KIND = KindSpec(
    resource=PRIORITYCLASSES,
    singular="priorityclass",
    generation=True,
    short_names=("pc",),
    default=default,
    validate_create=validate_create,
    validate_update=validate_update,
    columns=(
        cells.NAME,
        Column("Value", "integer", "", "The priority."),
        Column("Global-Default", "boolean", "", "Whether pods without a class get it."),
        cells.AGE,
        Column("PreemptionPolicy", "string", "", "Whether its pods may preempt others."),
    ),
    row=row,
)
