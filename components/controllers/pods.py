"""The state of a pod as controllers see it (k8s.io/kubernetes/pkg/api/v1/pod, controller_utils)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from kubewire.components.controllers.meta import (
    annotations_of,
    condition,
    created_at,
    is_deleting,
    parse_time,
)

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Pod, PodCondition

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"


def phase(pod: Pod) -> str:
    return str((pod.get("status") or {}).get("phase") or "")


def is_active(pod: Pod) -> bool:
    """Whether the pod is neither finished nor being deleted."""
    return phase(pod) not in ("Succeeded", "Failed") and not is_deleting(pod)


def is_finished(pod: Pod) -> bool:
    return phase(pod) in ("Succeeded", "Failed")


def ready_condition(pod: Pod) -> PodCondition | None:
    return condition(pod.get("status"), "Ready")


def is_ready(pod: Pod) -> bool:
    ready = ready_condition(pod)
    return ready is not None and ready.get("status") == "True"


def ready_since(pod: Pod) -> datetime:
    """When Ready became True; the epoch when it is not True."""
    ready = ready_condition(pod)
    is_true = ready is not None and ready.get("status") == "True"
    return parse_time(ready.get("lastTransitionTime") if ready is not None and is_true else None)


def is_available(pod: Pod, min_ready_seconds: int, now: datetime) -> bool:
    """Whether the pod has been ready for at least min_ready_seconds."""
    if not is_ready(pod):
        return False
    return min_ready_seconds == 0 or ready_since(pod) + timedelta(seconds=min_ready_seconds) <= now


def until_available(
    pods: Sequence[Pod],
    min_ready_seconds: int,
    now: datetime,
) -> float | None:
    """Seconds until the next ready pod becomes available; None when no pod waits for that."""
    if not min_ready_seconds:
        return None
    period = timedelta(seconds=min_ready_seconds)
    ready = [pod for pod in pods if is_ready(pod)]
    waiting = [(ready_since(pod) + period - now).total_seconds() for pod in ready]
    return min((seconds for seconds in waiting if seconds > 0), default=None)


def restarts(pod: Pod) -> int:
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    return max((int(status.get("restartCount") or 0) for status in statuses), default=0)


def deletion_cost(pod: Pod) -> int:
    """The value of the annotation; 0 when it is absent or not an integer."""
    try:
        return int(annotations_of(pod).get(DELETION_COST, "0"))
    except ValueError:
        return 0


_PHASE_ORDER = {"Pending": 0, "": 0, "Unknown": 1, "Running": 2}


def deletion_rank(
    pod: Pod,
    doubled_up: Mapping[str, int],
    now: datetime,
) -> tuple[object, ...]:
    """Sort key of the pods that a smaller ReplicaSet deletes, the first ones first
    (ActivePodsWithRanks).

    Pods go in this order: without a node, pending, not ready, with a low deletion cost, on a node
    with many related pods (doubled_up counts them), ready for a short time, often restarted,
    young. Ages are compared by order of magnitude (LogarithmicScaleDown), and the uid decides
    among similar ages, so that the youngest pods are not always the ones deleted.
    """
    node = pod["spec"].get("nodeName") or ""
    ready = is_ready(pod)
    return (
        bool(node),
        _PHASE_ORDER.get(phase(pod), 2),
        ready,
        deletion_cost(pod),
        -doubled_up.get(node, 0),
        _magnitude(ready_since(pod), now) if ready else 0,
        -restarts(pod),
        _magnitude(created_at(pod), now),
        pod["metadata"].get("uid", ""),
    )


def _magnitude(since: datetime, now: datetime) -> int:
    seconds = (now - since).total_seconds()
    return math.floor(math.log2(seconds)) if seconds >= 1 else -1
