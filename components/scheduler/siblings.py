"""Selects the pods from which a pod is spread by default: those of its Services and its owner."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from kubewire.components.kubeapi.selectors import LabelSelector, Requirement
from kubewire.components.scheduler.podspec import PodInfo

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import ReplicaSet, Service, StatefulSet


def default_selector(
    pod: PodInfo,
    services: Iterable[Service],
    owner: ReplicaSet | StatefulSet | None,
) -> LabelSelector | None:
    """Combines the selectors of the pod's Services and of its owner (helper.DefaultSelector).

    services are those of the pod's namespace; owner is its ReplicaSet or StatefulSet. Returns None
    when neither selects the pod.
    """
    labels: dict[str, str] = {}
    for service in services:
        selector: Mapping[str, str] = service["spec"].get("selector") or {}
        if selector and selector.items() <= dict(pod.labels).items():
            labels |= selector
    requirements: list[Requirement] = list(LabelSelector.from_map(labels).requirements)
    if owner is not None:
        requirements += LabelSelector.from_object(owner["spec"].get("selector")).requirements
    return LabelSelector(tuple(dict.fromkeys(requirements))) if requirements else None


def owner_key(pod: PodInfo) -> tuple[str, str] | None:
    """Returns (kind, name) of the controller whose selector spreads the pod."""
    for reference in pod.obj["metadata"].get("ownerReferences") or []:
        if reference.get("controller") and reference["kind"] in ("ReplicaSet", "StatefulSet"):
            return reference["kind"], reference["name"]
    return None
