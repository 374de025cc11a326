"""What a pod as a whole asks for (k8s.io/component-helpers/resource: PodRequests, PodLimits).

Containers run side by side, so their amounts add up. Init containers run one after the other, so
the largest of them counts, beside the sidecars that run already.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from kubewire.components.kubeapi.quantity import Amount

Amounts = dict[str, Amount]


def pod_requests(spec: Mapping[str, Any]) -> Amounts:
    return _total(spec, "requests")


def pod_limits(spec: Mapping[str, Any]) -> Amounts:
    return _total(spec, "limits")


def add(one: Mapping[str, Amount], other: Mapping[str, Amount]) -> Amounts:
    return {
        name: one[name] + other[name] if name in one and name in other else (one | other)[name]
        for name in (one | other)
    }
