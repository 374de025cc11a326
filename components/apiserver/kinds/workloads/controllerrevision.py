"""ControllerRevision (apps/v1): pkg/registry/apps/controllerrevision/strategy.go."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kubewire.components.apiserver.kinds import cells
from kubewire.components.apiserver.kinds.spec import Column, FieldError, KindSpec
from kubewire.components.kubeapi.resources import CONTROLLERREVISIONS, KubeObject

COLUMNS = (
    cells.NAME,
    Column("Controller", "string", "", "Controller of the object"),
    Column("Revision", "string", "", "Revision of the state represented by Data"),
    cells.AGE,
)


def row(obj: KubeObject, now: datetime) -> list[Any]:
    return [cells.name(obj), _controller(obj), obj.get("revision", 0), cells.age(obj, now)]


def _controller(obj: KubeObject) -> str:
    """The controller as kubectl shows it: daemonset.apps/web."""
    for reference in obj["metadata"].get("ownerReferences") or []:
        if reference.get("controller"):
            group = reference.get("apiVersion", "").rpartition("/")[0]
            kind = reference.get("kind", "").lower() + (f".{group}" if group else "")
            return f"{kind}/{reference.get('name', '')}"
    return cells.NONE


def validate(obj: KubeObject) -> list[FieldError]:
    if obj.get("revision", 0) < 0:
        return [
            FieldError(
                "Invalid",
                "revision",
                obj["revision"],
                "must be greater than or equal to 0",
            )
        ]
    if obj.get("data") is None:
        return [FieldError("Required", "data", detail="data is mandatory")]
    return []


def validate_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    if new.get("data") != old.get("data"):
        return [
            *validate(new),
            FieldError("Invalid", "data", new.get("data"), "field is immutable"),
        ]
    return validate(new)


KIND = KindSpec(
    resource=CONTROLLERREVISIONS,
    singular="controllerrevision",
    columns=COLUMNS,
    row=row,
    validate_create=validate,
    validate_update=validate_update,
)
