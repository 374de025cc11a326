"""The status of a PodDisruptionBudget (k8s.io/kubernetes/pkg/controller/disruption).

The eviction API trusts this status. While it cannot be computed, no disruption is allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from kubewire.components.controllers.actions import Action, Emit, Patch, Plan, Update
from kubewire.components.controllers.meta import (
    condition,
    controller_of,
    format_time,
    int_or_percent,
    is_deleting,
    parse_time,
)
from kubewire.components.controllers.pods import is_finished, is_ready
from kubewire.components.kubeapi.resources import PODDISRUPTIONBUDGETS, PODS, KubeObject

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import OwnerReference, Pod

#: How long an evicted pod counts as gone although it has not been deleted.
DELETION_TIMEOUT = timedelta(minutes=2)
#: How long a pod may have the condition DisruptionTarget without being deleted.
STALE_DISRUPTION = timedelta(minutes=2)
_UNMANAGED = (
    "Pods selected by this PodDisruptionBudget (selector: {selector}) were found to be unmanaged. "
    "As a result, the status of the PDB cannot be calculated correctly, which may result in "
    "undefined behavior. To account for these pods please set "
    '".spec.minAvailable" field of the PDB to an integer value.'
)

#: The scale of a pod's controller as (uid, replicas), or None when there is no such controller.
ScaleOf = Callable[["OwnerReference"], tuple[str, int] | None]


class ScaleError(Exception):
    """The number of expected pods cannot be found; the text goes into an event."""


@dataclass(frozen=True)
class Expected:
    """How many pods there should be, how many of them healthy, and those without a controller."""

    pods: int
    healthy: int
    unmanaged: tuple[str, ...] = ()


def plan(
    budget: KubeObject, pods: Sequence[Pod], scale_of: ScaleOf, now: datetime, selector: str = ""
) -> Plan:
    """Writes the status when it changes; selector is the text of it for an event."""
    events: list[Action] = []
    if not pods:
        events.append(Emit(budget, "Normal", "NoPods", "No matching pods found"))
    try:
        expected = expected_pods(budget, pods, scale_of)
    except (ScaleError, ValueError) as error:
        text = f"Failed to calculate the number of expected pods: {error}"
        events.append(Emit(budget, "Warning", "CalculateExpectedPodCountFailed", text))
        return Plan((*events, *_written(budget, _failed(budget, str(error), now))))
    if expected.unmanaged:
        text = _UNMANAGED.format(selector=selector)
        events.append(Emit(budget, "Warning", "UnmanagedPods", text))
    disrupted = _disrupted(budget, pods)
    current = {name: at for name, at in disrupted.items() if at + DELETION_TIMEOUT >= now}
    events += _not_deleted(budget, pods, disrupted.keys() - current.keys())
    status = _status(budget, pods, expected, current, now)
    waits = [(at + DELETION_TIMEOUT - now).total_seconds() for at in current.values()]
    return Plan((*events, *_written(budget, status)), min(waits, default=None))


def expected_pods(budget: KubeObject, pods: Sequence[Pod], scale_of: ScaleOf) -> Expected:
    """Raises ScaleError when a pod's controller is unknown."""
    spec = budget.get("spec") or {}
    most = spec.get("maxUnavailable")
    least = spec.get("minAvailable")
    if most is None and least is None:
        return Expected(0, 0)
    if most is None and isinstance(least, int):
        return Expected(len(pods), least)
    total, unmanaged = _scale(pods, scale_of)
    if most is not None:
        unavailable = int_or_percent(most, total, round_up=True)
        return Expected(total, max(total - unavailable, 0), unmanaged)
    return Expected(total, int_or_percent(least, total, round_up=True), unmanaged)


def _scale(pods: Iterable[Pod], scale_of: ScaleOf) -> tuple[int, tuple[str, ...]]:
    """The sum of the scales of all controllers of the pods, and the pods without one."""
    scales: dict[str, int] = {}
    unmanaged = []
    for pod in pods:
        name = pod["metadata"]["name"]
        owner = controller_of(pod)
        if owner is None:
            unmanaged.append(name)
        elif owner["uid"] not in scales:
            found = scale_of(owner)
            if found is None:
                raise ScaleError(f'found no controllers for pod "{name}"')
            scales[found[0]] = found[1]
    return sum(scales.values()), tuple(unmanaged)


def _disrupted(budget: KubeObject, pods: Iterable[Pod]) -> dict[str, datetime]:
    """When the eviction of each pod was granted that is not being deleted yet."""
    granted = (budget.get("status") or {}).get("disruptedPods") or {}
    names = [pod["metadata"]["name"] for pod in pods if not is_deleting(pod)]
    return {name: parse_time(granted[name]) for name in names if name in granted}


def _not_deleted(budget: KubeObject, pods: Iterable[Pod], late: Iterable[str]) -> list[Action]:
    metadata = budget["metadata"]
    names = set(late)
    # Upstream's text has the namespace twice.
    where = f"{metadata['namespace']}/{metadata['namespace']}"
    text = f"Pod was expected by PDB {where} to be deleted but it wasn't"
    return [
        Emit(pod, "Warning", "NotDeleted", text) for pod in pods if pod["metadata"]["name"] in names
    ]


def _status(
    budget: KubeObject,
    pods: Sequence[Pod],
    expected: Expected,
    disrupted: Mapping[str, datetime],
    now: datetime,
) -> KubeObject:
    healthy = sum(
        1
        for pod in pods
        if is_ready(pod) and not is_deleting(pod) and pod["metadata"]["name"] not in disrupted
    )
    # Without expected pods nothing is allowed, so that the first pods of a new workload are safe
    # until they have been counted.
    allowed = max(healthy - expected.healthy, 0) if expected.pods > 0 else 0
    status: KubeObject = {
        "disruptionsAllowed": allowed,
        "currentHealthy": healthy,
        "desiredHealthy": expected.healthy,
        "expectedPods": expected.pods,
        "observedGeneration": budget["metadata"].get("generation", 0),
    }
    if disrupted:
        status["disruptedPods"] = {name: format_time(at) for name, at in disrupted.items()}
    state = ("True", "SufficientPods") if allowed > 0 else ("False", "InsufficientPods")
    status["conditions"] = _conditions(budget, state, "", status["observedGeneration"], now)
    return status


def _failed(budget: KubeObject, why: str, now: datetime) -> KubeObject:
    status = {**(budget.get("status") or {}), "disruptionsAllowed": 0}
    generation = status.get("observedGeneration", 0)
    for field in ("currentHealthy", "desiredHealthy", "expectedPods"):
        status.setdefault(field, 0)
    return {
        **status,
        "conditions": _conditions(budget, ("False", "SyncFailed"), why, generation, now),
    }


def _conditions(
    budget: KubeObject, state: tuple[str, str], message: str, generation: int, now: datetime
) -> list[dict[str, Any]]:
    standing: Any = (budget.get("status") or {}).get("conditions") or []
    before = next((item for item in standing if item["type"] == "DisruptionAllowed"), None)
    since = format_time(now)
    if before is not None and before["status"] == state[0]:
        since = before["lastTransitionTime"]
    fresh: dict[str, Any] = {
        "type": "DisruptionAllowed",
        "status": state[0],
        "observedGeneration": generation,
        "lastTransitionTime": since,
        "reason": state[1],
        "message": message,
    }
    if not generation:
        del fresh["observedGeneration"]
    if before is None:
        return [*standing, fresh]
    return [fresh if item is before else item for item in standing]


def _written(budget: KubeObject, status: KubeObject) -> list[Action]:
    if status == budget.get("status"):
        return []
    return [Update(PODDISRUPTIONBUDGETS, {**budget, "status": status}, "status")]


def plan_stale(pod: Pod, now: datetime) -> Plan:
    """Sets DisruptionTarget to False on a pod that was to be evicted but was not deleted."""
    target = condition(pod.get("status"), "DisruptionTarget")
    if target is None or target["status"] != "True" or is_deleting(pod) or is_finished(pod):
        return Plan()
    # The kubelet may take any time between this condition and the end of the pod.
    if target.get("reason") == "TerminationByKubelet":
        return Plan()
    left = parse_time(target.get("lastTransitionTime")) + STALE_DISRUPTION - now
    if left > timedelta(0):
        return Plan((), left.total_seconds())
    standing: Any = (pod.get("status") or {}).get("conditions") or []
    cleared = {
        "type": "DisruptionTarget",
        "status": "False",
        "lastProbeTime": None,
        "lastTransitionTime": format_time(now),
    }
    conditions = [cleared if item["type"] == "DisruptionTarget" else item for item in standing]
    metadata = pod["metadata"]
    patch = {
        "metadata": {"resourceVersion": metadata["resourceVersion"]},
        "status": {"conditions": conditions},
    }
    return Plan((Patch(PODS, metadata["namespace"], metadata["name"], patch, "status"),))
