"""Metadata that all controllers read: owners, times, conditions, integers or percentages
(https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/object-meta/).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Generic, Required, TypedDict, TypeVar

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import OwnerReference, PartialObjectMetadata

AnyObject = TypeVar("AnyObject", bound="PartialObjectMetadata")
AnyCondition = TypeVar("AnyCondition", bound="Condition")


class Condition(TypedDict, total=False):
    """What the conditions of every kind have."""

    type: Required[str]
    status: Required[str]


class HasConditions(TypedDict, Generic[AnyCondition], total=False):
    """The status of a kind that has conditions."""

    conditions: list[AnyCondition]


Key = tuple[str, str]
_EPOCH = datetime.fromtimestamp(0, UTC)


def key_of(obj: PartialObjectMetadata) -> Key:
    """The object's (namespace, name)."""
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def labels_of(obj: PartialObjectMetadata) -> dict[str, str]:
    return obj["metadata"].get("labels") or {}


def annotations_of(obj: PartialObjectMetadata) -> dict[str, str]:
    return obj["metadata"].get("annotations") or {}


def is_deleting(obj: PartialObjectMetadata) -> bool:
    return bool(obj["metadata"].get("deletionTimestamp"))


def parse_time(text: str | None) -> datetime:
    """Parses a metav1.Time or MicroTime; an absent one is the epoch."""
    return datetime.fromisoformat(text) if text else _EPOCH


def format_time(when: datetime) -> str:
    """Formats a metav1.Time: RFC 3339 in UTC with whole seconds."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def created_at(obj: PartialObjectMetadata) -> datetime:
    return parse_time(obj["metadata"].get("creationTimestamp"))


def by_age(objects: Iterable[AnyObject]) -> list[AnyObject]:
    """Sorts by age, oldest first, and objects of the same age by name."""
    return sorted(objects, key=lambda obj: (created_at(obj), obj["metadata"]["name"]))


def controller_of(obj: PartialObjectMetadata) -> OwnerReference | None:
    """The owner reference with controller: true, if there is one (metav1.GetControllerOf)."""
    for reference in obj["metadata"].get("ownerReferences") or []:
        if reference.get("controller"):
            return reference.copy()
    return None


def controller_uid(obj: PartialObjectMetadata) -> str:
    """The uid of the object's controller, or "" for an orphan."""
    owner = controller_of(obj)
    return str(owner["uid"]) if owner else ""


def controller_reference(owner: PartialObjectMetadata) -> OwnerReference:
    """The owner reference of a controller (metav1.NewControllerRef)."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def condition(status: HasConditions[AnyCondition] | None, kind: str) -> AnyCondition | None:
    """A copy of the status condition of this type, or None."""
    for item in (status.get("conditions") if status else None) or []:
        if item.get("type") == kind:
            return item.copy()
    return None


def int_or_percent(value: int | str | None, total: int, *, round_up: bool) -> int:
    """Scales a percentage to total (intstr.GetScaledValueFromIntOrPercent).

    Raises ValueError when the value is neither an integer nor a percentage.
    """
    if value is None:
        return 0
    if isinstance(value, str) and value.endswith("%"):
        # Integers avoid a rounding error: 0.07 * 100 is 7.000000000000001, which rounds up to 8.
        percent = int(value[:-1])
        return -(-percent * total // 100) if round_up else math.floor(percent * total / 100)
    return int(value)
