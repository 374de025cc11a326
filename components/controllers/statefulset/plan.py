"""Plans the next step of a StatefulSet by upstream's rules.

First the replicas are created and repaired in order, then the condemned pods, those beyond
spec.replicas, are deleted from the highest ordinal, and then the remaining ones are updated from
the highest ordinal down to the partition. With OrderedReady the plan stops at the first pod that
is not healthy, so that at most one pod changes at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from kubewire.components.controllers.actions import (
    Action,
    Create,
    Delete,
    Patch,
    Plan,
    Report,
    Update,
)
from kubewire.components.controllers.meta import int_or_percent, is_deleting, labels_of
from kubewire.components.controllers.pods import (
    is_available,
    is_finished,
    is_ready,
    phase,
    until_available,
)
from kubewire.components.controllers.revisions import History, plan_history, plan_truncation
from kubewire.components.controllers.statefulset import claims, identity
from kubewire.components.kubeapi.resources import PODS, STATEFULSETS

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import (
        ControllerRevision,
        Pod,
        StatefulSet,
        StatefulSetStatus,
    )


_NO_CLAIMS: claims.Claims = {}
#: Seconds after which a pod that waits for the end of an old claim is planned again.
_CLAIM_RETRY = 1.0


@dataclass(frozen=True)
class Revisions:
    """The revision from which the rollout started, and the one to which it leads."""

    current: ControllerRevision
    update: ControllerRevision


@dataclass(frozen=True)
class Roster:
    """replicas holds the pod of each ordinal from the start, or None; condemned the pods beyond.

    condemned is sorted from the highest ordinal.
    """

    replicas: tuple[Pod | None, ...]
    condemned: tuple[Pod, ...]


def plan(
    statefulset: StatefulSet,
    pods: Sequence[Pod],
    revisions: Sequence[ControllerRevision],
    now: datetime,
    held: claims.Claims = _NO_CLAIMS,
) -> Plan:
    """Returns the actions of one sync; the status comes last. held are the claims of the
    namespace, by name.
    """
    history = plan_history(statefulset, revisions)
    named = _named(statefulset, history)
    members = roster(statefulset, pods)
    step: tuple[Action, ...] = ()
    if not is_deleting(statefulset):
        step = plan_pods(statefulset, members, named, now, held)
    status = plan_status(statefulset, pods, named, step, now)
    live = {identity.revision_of(pod) for pod in pods}
    live |= {status["currentRevision"], status["updateRevision"]}
    actions = history.actions + step + plan_truncation(statefulset, history.old, live)
    if _differs(statefulset.get("status") or {}, status):
        actions += (Update(STATEFULSETS, {**statefulset, "status": status}, "status"),)
    return Plan(actions, _next(statefulset, members, pods, held, now))


def _next(
    statefulset: StatefulSet,
    members: Roster,
    pods: Sequence[Pod],
    held: claims.Claims,
    now: datetime,
) -> float | None:
    start = identity.start_ordinal(statefulset)
    missing = [start + index for index, pod in enumerate(members.replicas) if pod is None]
    if any(claims.are_going(statefulset, ordinal, held) for ordinal in missing):
        return _CLAIM_RETRY
    return until_available(pods, _min_ready(statefulset), now)


def _named(statefulset: StatefulSet, history: History) -> Revisions:
    name = (statefulset.get("status") or {}).get("currentRevision")
    everything = [history.current, *history.old]
    current = next(
        (item for item in everything if item["metadata"]["name"] == name),
        history.current,
    )
    return Revisions(current, history.current)


def roster(statefulset: StatefulSet, pods: Sequence[Pod]) -> Roster:
    start = identity.start_ordinal(statefulset)
    count = identity.replicas_of(statefulset)
    places: dict[int, Pod] = {}
    condemned: list[tuple[int, Pod]] = []
    for pod in pods:
        ordinal = identity.ordinal_of(statefulset, pod)
        if start <= ordinal < start + count:
            places[ordinal] = pod
        elif ordinal >= 0:
            condemned.append((ordinal, pod))
    condemned.sort(key=lambda item: -item[0])
    replicas = tuple(places.get(start + index) for index in range(count))
    return Roster(replicas, tuple(pod for _, pod in condemned))


def _min_ready(statefulset: StatefulSet) -> int:
    return int(statefulset["spec"].get("minReadySeconds") or 0)


def _is_monotonic(statefulset: StatefulSet) -> bool:
    return bool(statefulset["spec"].get("podManagementPolicy", "OrderedReady") != "Parallel")


def _is_healthy(statefulset: StatefulSet, pod: Pod | None, now: datetime) -> bool:
    """Whether the pod is running, ready, available and not being deleted."""
    return (
        pod is not None
        and phase(pod) == "Running"
        and is_ready(pod)
        and is_available(pod, _min_ready(statefulset), now)
        and not is_deleting(pod)
    )


def plan_pods(
    statefulset: StatefulSet,
    members: Roster,
    revisions: Revisions,
    now: datetime,
    held: claims.Claims,
) -> tuple[Action, ...]:
    monotonic = _is_monotonic(statefulset)
    actions: list[Action] = []
    for leaving in members.condemned:
        ordinal = identity.ordinal_of(statefulset, leaving)
        actions += claims.plan(statefulset, ordinal, leaving, held, condemned=True)
    for index, pod in enumerate(members.replicas):
        ordinal = identity.start_ordinal(statefulset) + index
        if pod is not None or not claims.are_going(statefulset, ordinal, held):
            actions += claims.plan(statefulset, ordinal, pod, held)
            actions += _tend(statefulset, pod, ordinal, revisions)
        if monotonic and not _is_healthy(statefulset, pod, now):
            return tuple(actions)
    condemned = _condemn(statefulset, members, monotonic, now)
    if members.condemned and monotonic:
        return (*actions, *condemned)
    actions += condemned
    if (statefulset["spec"].get("updateStrategy") or {}).get("type") == "OnDelete":
        return tuple(actions)
    return (*actions, *_update(statefulset, members, revisions, now))


def _tend(
    statefulset: StatefulSet,
    pod: Pod | None,
    ordinal: int,
    revisions: Revisions,
) -> list[Action]:
    """Creates the pod of an ordinal, deletes it when it has finished, or restores its labels."""
    if pod is None:
        return [_create(statefulset, ordinal, revisions)]
    if is_finished(pod):
        return [] if is_deleting(pod) else [_delete(statefulset, pod)]
    wanted = identity.identity_labels(pod["metadata"]["name"], ordinal)
    if is_deleting(pod) or wanted.items() <= labels_of(pod).items():
        return []
    patch = {"metadata": {"labels": wanted}}
    return [Patch(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"], patch)]


def _partition(statefulset: StatefulSet) -> int:
    strategy = statefulset["spec"].get("updateStrategy") or {}
    return int((strategy.get("rollingUpdate") or {}).get("partition") or 0)


def _create(statefulset: StatefulSet, ordinal: int, revisions: Revisions) -> Create:
    strategy = (statefulset["spec"].get("updateStrategy") or {}).get("type", "RollingUpdate")
    below = ordinal < identity.start_ordinal(statefulset) + _partition(statefulset)
    keeps = strategy == "RollingUpdate" and below
    pod = identity.new_pod(statefulset, revisions.current if keeps else revisions.update, ordinal)
    return Create(PODS, pod, _report(statefulset, "create", pod["metadata"]["name"]))


def _delete(statefulset: StatefulSet, pod: Pod) -> Delete:
    metadata = pod["metadata"]
    report = _report(statefulset, "delete", metadata["name"])
    return Delete(PODS, metadata["namespace"], metadata["name"], metadata["uid"], report)


def _report(statefulset: StatefulSet, verb: str, name: str) -> Report:
    text = f"{verb} Pod {name} in StatefulSet {statefulset['metadata']['name']}"
    reason = verb.capitalize()
    return Report(
        statefulset,
        f"Successful{reason}",
        f"{text} successful",
        f"Failed{reason}",
        f"{text} failed error: {{error}}",
    )


def _condemn(
    statefulset: StatefulSet,
    members: Roster,
    monotonic: bool,
    now: datetime,
) -> list[Action]:
    """Deletes pods beyond spec.replicas.

    With OrderedReady only the highest is deleted, and not while a pod with a lower ordinal is
    unhealthy, unless the highest is the first unhealthy one.
    """
    if not monotonic:
        return [_delete(statefulset, pod) for pod in members.condemned if not is_deleting(pod)]
    if not members.condemned:
        return []
    highest = members.condemned[0]
    if is_deleting(highest):
        return []
    ascending = [*members.replicas, *reversed(members.condemned)]
    first = next((pod for pod in ascending if not _is_healthy(statefulset, pod, now)), None)
    if not _is_healthy(statefulset, highest, now) and highest is not first:
        return []
    return [_delete(statefulset, highest)]


def _update(
    statefulset: StatefulSet,
    members: Roster,
    revisions: Revisions,
    now: datetime,
) -> list[Action]:
    """Deletes pods of other revisions from the highest ordinal down to the partition.

    At most maxUnavailable pods, 1 by default, are unavailable.
    """
    rolling = (statefulset["spec"].get("updateStrategy") or {}).get("rollingUpdate") or {}
    count = len(members.replicas)
    budget = max(int_or_percent(rolling.get("maxUnavailable", 1), count, round_up=True), 1)
    budget -= sum(not _is_healthy(statefulset, pod, now) for pod in members.replicas)
    actions: list[Action] = []
    for pod in reversed(members.replicas[_partition(statefulset) :]):
        newest = revisions.update["metadata"]["name"]
        stale = pod is not None and identity.revision_of(pod) != newest
        if pod is None or not stale or is_deleting(pod) or is_finished(pod):
            continue
        if not _is_healthy(statefulset, pod, now):
            # The pod is unavailable already, so replacing it costs nothing, and it may never
            # become ready in its present revision.
            actions.append(_delete(statefulset, pod))
        elif budget > 0:
            actions.append(_delete(statefulset, pod))
            budget -= 1
    return actions


def plan_status(
    statefulset: StatefulSet,
    pods: Sequence[Pod],
    revisions: Revisions,
    step: Sequence[Action],
    now: datetime,
) -> StatefulSetStatus:
    """Counts the listed pods; this step's creations and deletions show in the next sync."""
    current, update = (item["metadata"]["name"] for item in (revisions.current, revisions.update))
    staying = [pod for pod in pods if phase(pod) and not is_deleting(pod)]
    ready = [pod for pod in pods if phase(pod) == "Running" and is_ready(pod)]
    status: StatefulSetStatus = {
        "observedGeneration": statefulset["metadata"].get("generation", 0),
        "replicas": sum(bool(phase(pod)) for pod in pods),
        "readyReplicas": len(ready),
        "availableReplicas": sum(is_available(pod, _min_ready(statefulset), now) for pod in ready),
        "currentReplicas": sum(identity.revision_of(pod) == current for pod in staying),
        "updatedReplicas": sum(identity.revision_of(pod) == update for pod in staying),
        "currentRevision": current,
        "updateRevision": update,
        "collisionCount": int((statefulset.get("status") or {}).get("collisionCount") or 0),
    }
    return _completed(statefulset, status)


def _completed(statefulset: StatefulSet, status: StatefulSetStatus) -> StatefulSetStatus:
    """Makes the update revision the current one when every replica is updated and ready."""
    strategy = (statefulset["spec"].get("updateStrategy") or {}).get("type", "RollingUpdate")
    desired = identity.replicas_of(statefulset)
    counts = (status["updatedReplicas"], status["readyReplicas"], status["replicas"])
    counted = all(count == desired for count in counts)
    if strategy != "RollingUpdate" or not counted:
        return status
    return {
        **status,
        "currentReplicas": status["updatedReplicas"],
        "currentRevision": status["updateRevision"],
    }


def _differs(held: Mapping[str, object], fresh: Mapping[str, object]) -> bool:
    return any((held.get(key) or 0) != (value or 0) for key, value in fresh.items())
