"""What a pod as a whole asks for (k8s.io/component-helpers/resource: PodRequests, PodLimits).

Containers run side by side, so their amounts add up. Init containers run one after the other, so
the largest of them counts, beside the sidecars that run already.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubewire.components.kubeapi.amounts import Amounts, added, largest, parsed


def pod_requests(spec: Mapping[str, Any]) -> Amounts:
    return _total(spec, "requests")


def pod_limits(spec: Mapping[str, Any]) -> Amounts:
    return _total(spec, "limits")


def _total(spec: Mapping[str, Any], field: str) -> Amounts:
    running: Amounts = {}
    for container in spec.get("containers") or ():
        running = added(running, _own(container, field))
    sidecars: Amounts = {}
    peak: Amounts = {}
    for container in spec.get("initContainers") or ():
        own = _own(container, field)
        if container.get("restartPolicy") == "Always":
            sidecars = added(sidecars, own)
            running = added(running, own)
            peak = largest(peak, sidecars)
        else:
            peak = largest(peak, added(sidecars, own))
    total = largest(running, peak) | _own(spec, field)
    overhead = parsed(spec.get("overhead") or {})
    if field == "limits":
        # Without a limit the overhead adds nothing.
        overhead = {name: amount for name, amount in overhead.items() if name in total}
    return added(total, overhead)


def _own(holder: Mapping[str, Any], field: str) -> Amounts:
    return parsed((holder.get("resources") or {}).get(field) or {})
