"""Status and conditions, with the reasons and messages that kubectl rollout and describe print."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

from kubewire.components.controllers.deployment.sizes import (
    available_of,
    max_unavailable,
    name_of,
    replicas_of,
)
from kubewire.components.controllers.meta import condition, format_time, parse_time

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import (
        Deployment,
        DeploymentCondition,
        DeploymentStatus,
        ReplicaSet,
        ReplicaSetStatus,
    )

NO_DEADLINE = 2**31 - 1
Conditions = list["DeploymentCondition"]
_Count = Literal["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"]


def deadline_of(deployment: Deployment) -> int | None:
    """progressDeadlineSeconds, or None without a deadline."""
    seconds = deployment["spec"].get("progressDeadlineSeconds")
    return None if seconds is None or seconds == NO_DEADLINE else int(seconds)


def with_condition(
    conditions: Iterable[DeploymentCondition],
    kind: str,
    status: str,
    reason: str,
    message: str,
    now: datetime,
) -> Conditions:
    """Sets a condition, unless it already has this status and reason (SetDeploymentCondition).

    lastTransitionTime changes only with the status.
    """
    held = list(conditions)
    standing = next((item for item in held if item["type"] == kind), None)
    if standing and standing["status"] == status and standing.get("reason") == reason:
        return held
    same_status = standing is not None and standing["status"] == status
    fresh: DeploymentCondition = {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastUpdateTime": format_time(now),
        "lastTransitionTime": standing["lastTransitionTime"]
        if standing is not None and same_status
        else format_time(now),
    }
    return [*without_condition(held, kind), fresh]


def without_condition(conditions: Iterable[DeploymentCondition], kind: str) -> Conditions:
    return [item for item in conditions if item["type"] != kind]


def counts(
    deployment: Deployment,
    everything: Sequence[ReplicaSet],
    newest: ReplicaSet | None,
) -> DeploymentStatus:
    """The numbers of the status, summed over the ReplicaSets' statuses (calculateStatus)."""
    held = deployment.get("status") or {}

    def summed(field: Literal["replicas", "readyReplicas", "terminatingReplicas"]) -> int:
        return sum(int(_status_of(item).get(field) or 0) for item in everything)

    replicas = summed("replicas")
    available = sum(map(available_of, everything))
    status: DeploymentStatus = {
        "observedGeneration": deployment["metadata"].get("generation", 0),
        "replicas": replicas,
        "updatedReplicas": int(_status_of(newest).get("replicas") or 0),
        "readyReplicas": summed("readyReplicas"),
        "availableReplicas": available,
        "unavailableReplicas": max(replicas - available, 0),
        "terminatingReplicas": summed("terminatingReplicas"),
    }
    if held.get("collisionCount") is not None:
        status["collisionCount"] = held["collisionCount"]
    return status


def _status_of(replicaset: ReplicaSet | None) -> ReplicaSetStatus:
    return (replicaset.get("status") if replicaset is not None else None) or {}


def with_available(
    deployment: Deployment,
    conditions: Conditions,
    available: int,
    now: datetime,
) -> Conditions:
    if available >= replicas_of(deployment) - max_unavailable(deployment):
        return with_condition(
            conditions,
            "Available",
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
            now,
        )
    return with_condition(
        conditions,
        "Available",
        "False",
        "MinimumReplicasUnavailable",
        "Deployment does not have minimum availability.",
        now,
    )


def is_complete(deployment: Deployment, status: DeploymentStatus) -> bool:
    desired = replicas_of(deployment)
    counts = (status["updatedReplicas"], status["replicas"], status["availableReplicas"])
    return all(count == desired for count in counts)


def _is_progressing(held: DeploymentStatus, status: DeploymentStatus) -> bool:
    def number(source: DeploymentStatus, field: _Count) -> int:
        return int(source.get(field) or 0)

    def old_replicas(source: DeploymentStatus) -> int:
        return number(source, "replicas") - number(source, "updatedReplicas")

    return (
        number(status, "updatedReplicas") > number(held, "updatedReplicas")
        or old_replicas(status) < old_replicas(held)
        or number(status, "readyReplicas") > number(held, "readyReplicas")
        or number(status, "availableReplicas") > number(held, "availableReplicas")
    )


def _progressing(conditions: Conditions) -> DeploymentCondition | None:
    status: DeploymentStatus = {"conditions": conditions}
    return condition(status, "Progressing")


def _timed_out(deployment: Deployment, conditions: Conditions, now: datetime) -> bool:
    standing = _progressing(conditions)
    seconds = deadline_of(deployment)
    if standing is None or seconds is None or standing.get("reason") == "NewReplicaSetAvailable":
        return False
    if standing.get("reason") == "ProgressDeadlineExceeded":
        return True
    return parse_time(standing.get("lastUpdateTime")) + timedelta(seconds=seconds) < now


def with_progress(
    deployment: Deployment,
    conditions: Conditions,
    status: DeploymentStatus,
    newest: ReplicaSet | None,
    now: datetime,
) -> Conditions:
    """Sets Progressing after a step of the rollout (syncRolloutStatus)."""
    if deadline_of(deployment) is None:
        return without_condition(conditions, "Progressing")
    standing = _progressing(conditions)
    already = standing is not None and standing.get("reason") == "NewReplicaSetAvailable"
    if already and status["replicas"] == status["updatedReplicas"]:
        return conditions
    subject = f'ReplicaSet "{name_of(newest)}"' if newest else f'Deployment "{name_of(deployment)}"'
    if is_complete(deployment, status):
        text = f"{subject} has successfully progressed."
        return with_condition(
            conditions,
            "Progressing",
            "True",
            "NewReplicaSetAvailable",
            text,
            now,
        )
    if _is_progressing(deployment.get("status") or {}, status):
        return _with_fresh_progress(conditions, standing, f"{subject} is progressing.", now)
    if _timed_out(deployment, conditions, now):
        text = f"{subject} has timed out progressing."
        return with_condition(
            conditions,
            "Progressing",
            "False",
            "ProgressDeadlineExceeded",
            text,
            now,
        )
    return conditions


def _with_fresh_progress(
    conditions: Conditions,
    standing: DeploymentCondition | None,
    text: str,
    now: datetime,
) -> Conditions:
    # The deadline counts from lastUpdateTime, so progress renews it even if status and reason
    # stay.
    fresh = with_condition(
        without_condition(conditions, "Progressing"),
        "Progressing",
        "True",
        "ReplicaSetUpdated",
        text,
        now,
    )
    if standing is not None and standing["status"] == "True":
        fresh[-1]["lastTransitionTime"] = standing["lastTransitionTime"]
    return fresh


def with_replica_failure(
    conditions: Conditions, everything: Sequence[ReplicaSet], newest: ReplicaSet | None
) -> Conditions:
    """Copies ReplicaFailure from the newest ReplicaSet, or else from any other."""
    rest = without_condition(conditions, "ReplicaFailure")
    for item in [*([newest] if newest else []), *everything]:
        failure = condition(item.get("status"), "ReplicaFailure")
        if failure is not None and failure["status"] == "True":
            return [*rest, {**failure, "lastUpdateTime": failure["lastTransitionTime"]}]
    return rest


def with_pause(deployment: Deployment, conditions: Conditions, now: datetime) -> Conditions:
    """Sets Progressing to Unknown while paused, which stops the deadline
    (checkPausedConditions).
    """
    if deadline_of(deployment) is None:
        return conditions
    standing = _progressing(conditions)
    if standing and standing.get("reason") == "ProgressDeadlineExceeded":
        return conditions
    paused = bool(deployment["spec"].get("paused"))
    was_paused = standing is not None and standing.get("reason") == "DeploymentPaused"
    if paused and not was_paused:
        return with_condition(
            conditions,
            "Progressing",
            "Unknown",
            "DeploymentPaused",
            "Deployment is paused",
            now,
        )
    if not paused and was_paused:
        return with_condition(
            conditions,
            "Progressing",
            "Unknown",
            "DeploymentResumed",
            "Deployment is resumed",
            now,
        )
    return conditions


def until_deadline(
    deployment: Deployment,
    conditions: Conditions,
    complete: bool,
    now: datetime,
) -> float | None:
    """Seconds until the progress deadline must be checked, or None when it does not run."""
    standing = _progressing(conditions)
    seconds = deadline_of(deployment)
    if standing is None or seconds is None or complete or deployment["spec"].get("paused"):
        return None
    if standing.get("reason") in ("NewReplicaSetAvailable", "ProgressDeadlineExceeded"):
        return None
    deadline = parse_time(standing.get("lastUpdateTime")) + timedelta(seconds=seconds)
    return max((deadline - now).total_seconds(), 0.0) + 1.0
