"""What a pod as a whole asks for, in exact amounts (k8s.io/component-helpers/resource: PodRequests,
PodLimits). Quotas and LimitRanges bound it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubewire.components.kubeapi.amounts import Amounts, added, parsed
from kubewire.components.kubeapi.podneeds import together


def pod_requests(spec: Mapping[str, Any]) -> Amounts:
    return _total(spec, "requests")


def pod_limits(spec: Mapping[str, Any]) -> Amounts:
    return _total(spec, "limits")


def _total(spec: Mapping[str, Any], field: str) -> Amounts:
    total = together(spec, lambda container: _own(container, field)) | _own(spec, field)
    overhead = parsed(spec.get("overhead") or {})
    if field == "limits":
        # Without a limit the overhead adds nothing.
        overhead = {name: amount for name, amount in overhead.items() if name in total}
    return added(total, overhead)


def _own(holder: Mapping[str, Any], field: str) -> Amounts:
    return parsed((holder.get("resources") or {}).get(field) or {})
