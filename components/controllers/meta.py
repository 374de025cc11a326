"""What every controller reads from metadata: owners, times, conditions, int-or-percent
(https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/object-meta/)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime

from kubewire.components.kubeapi.resources import KubeObject

Key = tuple[str, str]
_EPOCH = datetime.fromtimestamp(0, UTC)


def key_of(obj: KubeObject) -> Key:
    """(namespace, name)."""
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def labels_of(obj: KubeObject) -> dict[str, str]:
    return obj["metadata"].get("labels") or {}


def annotations_of(obj: KubeObject) -> dict[str, str]:
    return obj["metadata"].get("annotations") or {}


def is_deleting(obj: KubeObject) -> bool:
    return bool(obj["metadata"].get("deletionTimestamp"))


def parse_time(text: str | None) -> datetime:
    """metav1.Time or MicroTime; the epoch when absent."""
    return datetime.fromisoformat(text) if text else _EPOCH


def format_time(when: datetime) -> str:
    """metav1.Time: RFC 3339, whole seconds, UTC."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def created_at(obj: KubeObject) -> datetime:
    return parse_time(obj["metadata"].get("creationTimestamp"))


def by_age(objects: Iterable[KubeObject]) -> list[KubeObject]:
    """Oldest first, names break ties."""
    return sorted(objects, key=lambda obj: (created_at(obj), obj["metadata"]["name"]))


def controller_of(obj: KubeObject) -> KubeObject | None:
    """The one owner reference with controller: true (metav1.GetControllerOf)."""
    for reference in obj["metadata"].get("ownerReferences") or []:
        if reference.get("controller"):
            return dict(reference)
    return None


def controller_uid(obj: KubeObject) -> str:
    """uid of the controller, "" for an orphan."""
    owner = controller_of(obj)
    return str(owner["uid"]) if owner else ""


def controller_reference(owner: KubeObject) -> KubeObject:
    """metav1.NewControllerRef."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def condition(status: KubeObject | None, kind: str) -> KubeObject | None:
    """The status condition of this type, as it is."""
    for item in (status or {}).get("conditions") or []:
        if item.get("type") == kind:
            return dict(item)
    return None


def int_or_percent(value: int | str | None, total: int, *, round_up: bool) -> int:
    """intstr.GetScaledValueFromIntOrPercent. Raises ValueError when it is neither."""
    if value is None:
        return 0
    if isinstance(value, str) and value.endswith("%"):
        # Integers throughout: 0.07 * 100 is 7.000000000000001, which would round up to 8.
        percent = int(value[:-1])
        return -(-percent * total // 100) if round_up else math.floor(percent * total / 100)
    return int(value)
