"""Computes a pod's quality of service class (k8s.io/kubernetes/pkg/apis/core/helper/qos)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubewire.components.kubeapi.quantity import parse_quantity

_COMPUTE = ("cpu", "memory")


def qos_class(spec: Mapping[str, Any]) -> str:
    """Guaranteed, BestEffort or Burstable.

    A pod is Guaranteed when every container has limits of cpu and memory that equal its requests,
    and BestEffort when no container has any.
    """
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    if spec.get("resources"):
        containers = [{"resources": spec["resources"]}]
    named = guaranteed = False
    classes = []
    for container in containers:
        resources = container.get("resources") or {}
        limits = _positive(resources.get("limits"))
        requests = {**limits, **_positive(resources.get("requests"))}
        named = named or bool(requests)
        classes.append(set(limits) == set(_COMPUTE) and requests == limits)
    guaranteed = bool(classes) and all(classes)
    if not named:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def _positive(amounts: Mapping[str, Any] | None) -> dict[str, Any]:
    positive = {}
    for key in _COMPUTE:
        try:
            amount = parse_quantity((amounts or {}).get(key, 0))
        except ValueError:
            continue
        if amount > 0:
            positive[key] = amount
    return positive
