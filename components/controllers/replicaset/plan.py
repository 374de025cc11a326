"""Plans the pods to create and delete, and the status, from a ReplicaSet and its pods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from kubewire.components.controllers.actions import Action, Create, Delete, Report, SlowStart
from kubewire.components.controllers.meta import condition, format_time, is_deleting, labels_of
from kubewire.components.controllers.pods import (
    deletion_rank,
    is_active,
    is_available,
    is_ready,
    phase,
)
from kubewire.components.controllers.podtemplate import pod_from_template
from kubewire.components.kubeapi.resources import PODS

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import (
        Pod,
        ReplicaSet,
        ReplicaSetCondition,
        ReplicaSetStatus,
        ReplicationController,
    )

#: The most pods that one sync creates or deletes (BurstReplicas).
BURST = 500


def as_replicaset(controller: ReplicationController) -> ReplicaSet:
    """A ReplicationController in the form of a ReplicaSet
    (pkg/controller/replication/conversion.go)."""
    spec: Any = {**controller["spec"]}
    spec["selector"] = {"matchLabels": spec.get("selector") or {}}
    converted: Any = {**controller, "spec": spec}
    replicaset: ReplicaSet = converted
    return replicaset


def plan_replicas(
    replicaset: ReplicaSet, pods: Sequence[Pod], doubled_up: Mapping[str, int], now: datetime
) -> tuple[Action, ...]:
    """Brings the number of active pods to spec.replicas.

    doubled_up counts related pods on each node, for the ranking.
    """
    active = [pod for pod in pods if is_active(pod)]
    missing = int(replicaset["spec"].get("replicas", 1)) - len(active)
    if missing > 0:
        return (SlowStart(tuple(_create(replicaset) for _ in range(min(missing, BURST)))),)
    surplus = sorted(active, key=lambda pod: deletion_rank(pod, doubled_up, now))
    return tuple(_delete(replicaset, pod) for pod in surplus[: min(-missing, BURST)])


def _create(replicaset: ReplicaSet) -> Create:
    report = Report(
        replicaset,
        "SuccessfulCreate",
        "Created pod: {name}",
        "FailedCreate",
        "Error creating: {error}",
    )
    return Create(PODS, pod_from_template(replicaset, replicaset["spec"]["template"]), report)


def _delete(replicaset: ReplicaSet, pod: Pod) -> Delete:
    metadata = pod["metadata"]
    report = Report(
        replicaset,
        "SuccessfulDelete",
        "Deleted pod: {name}",
        "FailedDelete",
        "Error deleting: {error}",
    )
    return Delete(PODS, metadata["namespace"], metadata["name"], metadata["uid"], report)


def doubled_up(related: Sequence[Pod]) -> dict[str, int]:
    """Active pods of the same Deployment on each node (getPodsRankedByRelatedPodsOnSameNode)."""
    counts: dict[str, int] = {}
    for pod in related:
        if is_active(pod):
            node = pod["spec"].get("nodeName") or ""
            counts[node] = counts.get(node, 0) + 1
    return counts


def plan_status(
    replicaset: ReplicaSet, pods: Sequence[Pod], now: datetime, error: str | None = None
) -> ReplicaSetStatus:
    """The status; error, the message of a failed create or delete, becomes condition
    ReplicaFailure.
    """
    spec = replicaset["spec"]
    wanted = (spec["template"].get("metadata") or {}).get("labels") or {}
    counted = [pod for pod in pods if is_active(pod)]
    min_ready = int(spec.get("minReadySeconds") or 0)
    status: ReplicaSetStatus = {
        "replicas": len(counted),
        "fullyLabeledReplicas": sum(wanted.items() <= labels_of(pod).items() for pod in counted),
        "readyReplicas": sum(is_ready(pod) for pod in counted),
        "availableReplicas": sum(is_available(pod, min_ready, now) for pod in counted),
        "terminatingReplicas": sum(_is_terminating(pod) for pod in pods),
        "observedGeneration": replicaset["metadata"].get("generation", 0),
    }
    conditions = _conditions(replicaset, len(counted), error, now)
    if conditions:
        status["conditions"] = conditions
    return status


def _is_terminating(pod: Pod) -> bool:
    return is_deleting(pod) and phase(pod) not in ("Succeeded", "Failed")


def _conditions(
    replicaset: ReplicaSet,
    active: int,
    error: str | None,
    now: datetime,
) -> list[ReplicaSetCondition]:
    status = replicaset.get("status") or {}
    rest = [item for item in status.get("conditions") or [] if item["type"] != "ReplicaFailure"]
    if error is None:
        return rest
    too_few = active < int(replicaset["spec"].get("replicas", 1))
    reason = "FailedCreate" if too_few else "FailedDelete"
    standing = condition(status, "ReplicaFailure")
    if standing is not None and standing.get("reason") == reason:
        return [*rest, standing]
    failure: ReplicaSetCondition = {
        "type": "ReplicaFailure",
        "status": "True",
        "reason": reason,
        "message": error,
        "lastTransitionTime": format_time(now),
    }
    return [*rest, failure]


_COUNTS = (
    "replicas",
    "fullyLabeledReplicas",
    "readyReplicas",
    "availableReplicas",
    "terminatingReplicas",
    "observedGeneration",
)


def status_differs(old: ReplicaSetStatus | None, new: ReplicaSetStatus) -> bool:
    old = old or {}
    if any((old.get(key) or 0) != (new.get(key) or 0) for key in _COUNTS):
        return True
    return bool((old.get("conditions") or []) != (new.get("conditions") or []))
