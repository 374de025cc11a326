"""One sync of a Job: count the pods that ended, decide whether it is over, create or delete pods.

The Job's status must count each pod exactly once, even though the controller may be killed at any
moment and finished pods may be deleted. A finalizer therefore holds every pod until it is counted,
and counting takes three writes (KEP-2307):

1. The uids of ended pods go into status.uncountedTerminatedPods.
2. Their finalizers are removed.
3. The uids become numbers in the status.

Each write waits for the one before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

from kubewire.components.controllers.actions import (
    Action,
    Create,
    Delete,
    Emit,
    Patch,
    Plan,
    Report,
    SlowStart,
    Update,
)
from kubewire.components.controllers.job.indexes import (
    FINALIZER,
    format_indexes,
    index_of,
    is_indexed,
    new_pod,
    parse_indexes,
)
from kubewire.components.controllers.meta import (
    by_age,
    condition,
    format_time,
    is_deleting,
    parse_time,
)
from kubewire.components.controllers.pods import is_active, is_ready, phase, restarts
from kubewire.components.kubeapi.resources import JOBS, PODS

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import (
        Job,
        JobCondition,
        JobStatus,
        Pod,
        UncountedTerminatedPods,
    )

_FIRST_BACKOFF = 10.0
_LAST_BACKOFF = 600.0
_BURST = 500
_Ended = Literal["succeeded", "failed"]


@dataclass(frozen=True)
class Tally:
    """The Job's pods that have ended.

    uncounted_succeeded and uncounted_failed hold the uids that the status should list. release
    holds the pods whose finalizer may be removed.
    """

    succeeded: int
    failed: int
    uncounted_succeeded: tuple[str, ...]
    uncounted_failed: tuple[str, ...]
    indexes: frozenset[int]
    release: tuple[Pod, ...]

    @property
    def all_succeeded(self) -> int:
        return self.succeeded + len(self.uncounted_succeeded)

    @property
    def all_failed(self) -> int:
        return self.failed + len(self.uncounted_failed)


@dataclass(frozen=True)
class Ending:
    """Why a Job is over; kind is Complete or Failed."""

    kind: str
    reason: str
    message: str


def has_finalizer(pod: Pod) -> bool:
    return FINALIZER in (pod["metadata"].get("finalizers") or ())


def is_finished(job: Job) -> bool:
    ends = [condition(job.get("status"), kind) for kind in ("Complete", "Failed")]
    return any(end is not None and end.get("status") == "True" for end in ends)


def remove_finalizer(pod: Pod) -> Patch:
    metadata = pod["metadata"]
    kept = [item for item in metadata.get("finalizers") or [] if item != FINALIZER]
    patch = {
        "metadata": {
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
            "finalizers": kept or None,
        }
    }
    return Patch(PODS, metadata["namespace"], metadata["name"], patch)


def plan(job: Job, pods: Sequence[Pod], now: datetime) -> Plan:
    """Returns the actions of this sync; pods are all that the Job controls."""
    if is_finished(job) or is_deleting(job):
        return Plan(tuple(remove_finalizer(pod) for pod in pods if has_finalizer(pod)))
    tally = count(job, pods)
    active = [pod for pod in by_age(pods) if is_active(pod)]
    ending = _ending(job, tally, active, now)
    wait: float | None = None
    if ending is not None:
        step: tuple[Action, ...] = tuple(_delete(job, pod) for pod in active)
    elif job["spec"].get("suspend"):
        step = tuple(_delete(job, pod) for pod in active)
    else:
        step, wait = _manage(job, pods, active, tally, now)
    status, events = _status(job, pods, active, tally, ending, now)
    actions: tuple[Action, ...] = ()
    if _differs(job.get("status") or {}, status):
        actions = (Update(JOBS, {**job, "status": status}, "status"),)
    actions += tuple(remove_finalizer(pod) for pod in tally.release) + step + events
    return Plan(actions, _sooner(wait, _until_deadline(job, status, now)))


def _sooner(*waits: float | None) -> float | None:
    return min((item for item in waits if item is not None), default=None)


def _has_failed(pod: Pod) -> bool:
    """Whether the pod counts as failed; one being deleted does unless it succeeded."""
    return phase(pod) == "Failed" or (is_deleting(pod) and phase(pod) != "Succeeded")


def count(job: Job, pods: Sequence[Pod]) -> Tally:
    status = job.get("status") or {}
    uncounted = status.get("uncountedTerminatedPods") or {}
    tracked = {pod["metadata"]["uid"]: pod for pod in pods if has_finalizer(pod)}
    indexes = parse_indexes(status.get("completedIndexes") or "") if is_indexed(job) else set()
    waiting: dict[_Ended, list[str]] = {"succeeded": [], "failed": []}
    numbers = {kind: int(status.get(kind) or 0) for kind in waiting}
    for kind in waiting:
        for uid in uncounted.get(kind) or []:
            if uid in tracked:
                waiting[kind].append(uid)
            else:
                numbers[kind] += 1
    written = {*waiting["succeeded"], *waiting["failed"]}
    for uid, pod in tracked.items():
        if uid in written:
            continue
        if phase(pod) == "Succeeded":
            _count_success(job, pod, indexes, waiting)
        elif _has_failed(pod):
            waiting["failed"].append(uid)
    if is_indexed(job):
        numbers["succeeded"] = len(indexes)
        waiting["succeeded"] = []
    # Indexes form a set, in which counting twice is harmless. They therefore need no uids, and a
    # pod loses its finalizer once the status has its index.
    settled = parse_indexes(status.get("completedIndexes") or "") if is_indexed(job) else set()
    release = []
    for uid, pod in tracked.items():
        has_index = is_indexed(job) and phase(pod) == "Succeeded" and index_of(pod) in settled
        if uid in written or has_index:
            release.append(pod)
    return Tally(
        numbers["succeeded"],
        numbers["failed"],
        tuple(waiting["succeeded"]),
        tuple(waiting["failed"]),
        frozenset(indexes),
        tuple(release),
    )


def _count_success(
    job: Job,
    pod: Pod,
    indexes: set[int],
    waiting: dict[_Ended, list[str]],
) -> None:
    index = index_of(pod)
    if not is_indexed(job):
        waiting["succeeded"].append(pod["metadata"]["uid"])
    elif index is not None and index < int(job["spec"].get("completions") or 0):
        indexes.add(index)


def _ending(
    job: Job,
    tally: Tally,
    active: Sequence[Pod],
    now: datetime,
) -> Ending | None:
    spec = job["spec"]
    status = job.get("status") or {}
    for kind, final in (("FailureTarget", "Failed"), ("SuccessCriteriaMet", "Complete")):
        standing = condition(status, kind)
        if standing is not None and standing["status"] == "True":
            return Ending(final, standing["reason"], standing["message"])
    limit = int(spec.get("backoffLimit", 6))
    if tally.all_failed > limit or _restarted_too_often(job, active, limit):
        return Ending(
            "Failed",
            "BackoffLimitExceeded",
            "Job has reached the specified backoff limit",
        )
    left = None if spec.get("suspend") else _until_deadline(job, status, now)
    if left is not None and left <= 0:
        return Ending("Failed", "DeadlineExceeded", "Job was active longer than specified deadline")
    completions = spec.get("completions")
    wanted = 1 if completions is None else int(completions)
    done = tally.all_succeeded >= wanted
    if done and not active:
        return Ending("Complete", "CompletionsReached", "Reached expected number of succeeded pods")
    return None


def _restarted_too_often(job: Job, active: Sequence[Pod], limit: int) -> bool:
    """Checks the backoffLimit for restartPolicy OnFailure.

    There the kubelet restarts containers in place, so restarts count instead of failed pods.
    """
    if job["spec"]["template"]["spec"].get("restartPolicy") != "OnFailure":
        return False
    total = sum(restarts(pod) for pod in active)
    return total > 0 if limit == 0 else total >= limit


def _manage(
    job: Job,
    pods: Sequence[Pod],
    active: Sequence[Pod],
    tally: Tally,
    now: datetime,
) -> tuple[tuple[Action, ...], float | None]:
    """Returns (creations and deletions, seconds of back-off that are left)."""
    spec = job["spec"]
    parallelism = int(spec.get("parallelism", 1))
    if spec.get("completions") is None:
        wanted = min(parallelism, len(active)) if tally.all_succeeded else parallelism
    else:
        wanted = min(int(spec["completions"]) - tally.all_succeeded, parallelism)
    doomed = _duplicates(job, active, tally)
    kept = [pod for pod in active if pod not in doomed]
    # Pods that are not ready and young pods go first, because they lose the least work.
    youngest_first = list(reversed(kept))
    youngest_first.sort(key=is_ready)
    doomed += youngest_first[: max(len(kept) - wanted, 0)]
    missing = min(max(wanted - len(kept), 0), _BURST)
    deletions = tuple(_delete(job, pod) for pod in doomed)
    if not missing:
        return deletions, None
    wait = _backoff(pods, now)
    if wait > 0:
        return deletions, wait
    creates = tuple(_create(job, index) for index in _free_indexes(job, kept, tally, missing))
    return (*deletions, *((SlowStart(creates),) if creates else ())), None


def _duplicates(job: Job, active: Sequence[Pod], tally: Tally) -> list[Pod]:
    """For an Indexed Job, the pods whose index is completed, out of range, or that of an older
    pod.
    """
    if not is_indexed(job):
        return []
    taken = set(tally.indexes)
    doomed = []
    for pod in active:
        index = index_of(pod)
        if index is None or index in taken or index >= int(job["spec"].get("completions") or 0):
            doomed.append(pod)
        else:
            taken.add(index)
    return doomed


def _free_indexes(
    job: Job,
    kept: Sequence[Pod],
    tally: Tally,
    count: int,
) -> list[int | None]:
    if not is_indexed(job):
        return [None] * count
    taken = {index_of(pod) for pod in kept} | tally.indexes
    completions = int(job["spec"].get("completions") or 0)
    free: list[int | None] = [index for index in range(completions) if index not in taken]
    return free[:count]


def _ended_at(pod: Pod) -> datetime:
    """When the last container ended, or the pod's deletion or creation if no container says so."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    states = [(item.get("state") or {}).get("terminated") or {} for item in statuses]
    ends = [terminated.get("finishedAt") for terminated in states]
    known = [parse_time(end) for end in ends if end]
    metadata = pod["metadata"]
    return max(
        known,
        default=parse_time(metadata.get("deletionTimestamp") or metadata.get("creationTimestamp")),
    )


def _backoff(pods: Sequence[Pod], now: datetime) -> float:
    """Seconds to wait before creating pods.

    The delay is 10, 20, 40 seconds and so on up to 600, after the last failure since the last
    success.
    """
    success = max(
        (_ended_at(pod) for pod in pods if phase(pod) == "Succeeded"),
        default=parse_time(None),
    )
    failed = (_ended_at(pod) for pod in pods if phase(pod) == "Failed")
    failures = [end for end in failed if end > success]
    if not failures:
        return 0.0
    delay = min(_FIRST_BACKOFF * 2.0 ** (len(failures) - 1), _LAST_BACKOFF)
    return max((max(failures) - now).total_seconds() + delay, 0.0)


def _create(job: Job, index: int | None) -> Create:
    report = Report(
        job,
        "SuccessfulCreate",
        "Created pod: {name}",
        "FailedCreate",
        "Error creating: {error}",
    )
    return Create(PODS, new_pod(job, index), report)


def _delete(job: Job, pod: Pod) -> Delete:
    metadata = pod["metadata"]
    report = Report(
        job,
        "SuccessfulDelete",
        "Deleted pod: {name}",
        "FailedDelete",
        "Error deleting: {error}",
    )
    return Delete(PODS, metadata["namespace"], metadata["name"], metadata["uid"], report)


def _uncounted(tally: Tally) -> UncountedTerminatedPods:
    uids: UncountedTerminatedPods = {}
    if tally.uncounted_succeeded:
        uids["succeeded"] = list(tally.uncounted_succeeded)
    if tally.uncounted_failed:
        uids["failed"] = list(tally.uncounted_failed)
    return uids


def _status(
    job: Job,
    pods: Sequence[Pod],
    active: Sequence[Pod],
    tally: Tally,
    ending: Ending | None,
    now: datetime,
) -> tuple[JobStatus, tuple[Emit, ...]]:
    held = job.get("status") or {}
    status: JobStatus = {
        "active": len(active),
        "ready": sum(is_ready(pod) for pod in active),
        "terminating": sum(is_deleting(pod) and not _has_ended(pod) for pod in pods),
        "succeeded": tally.succeeded,
        "failed": tally.failed,
        "uncountedTerminatedPods": _uncounted(tally),
    }
    if is_indexed(job):
        status["completedIndexes"] = format_indexes(tally.indexes)
    suspended = bool(job["spec"].get("suspend"))
    if held.get("startTime") and not suspended:
        status["startTime"] = held["startTime"]
    elif not suspended:
        status["startTime"] = format_time(now)
    conditions, events = _suspension(job, list(held.get("conditions") or []), now)
    if ending is not None:
        settled = not active and not status["terminating"] and not status["uncountedTerminatedPods"]
        conditions, events = _ended(job, conditions, ending, settled, now)
        if settled and ending.kind == "Complete":
            status["completionTime"] = format_time(now)
    if conditions:
        status["conditions"] = conditions
    return status, events


def _has_ended(pod: Pod) -> bool:
    return phase(pod) in ("Succeeded", "Failed")


def _condition(kind: str, status: str, reason: str, message: str, now: datetime) -> JobCondition:
    when = format_time(now)
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastProbeTime": when,
        "lastTransitionTime": when,
    }


def _suspension(
    job: Job, conditions: list[JobCondition], now: datetime
) -> tuple[list[JobCondition], tuple[Emit, ...]]:
    standing = next((item for item in conditions if item["type"] == "Suspended"), None)
    wanted = "True" if job["spec"].get("suspend") else "False"
    if (standing["status"] if standing else "False") == wanted:
        return conditions, ()
    reason, text = ("JobResumed", "Job resumed")
    if wanted == "True":
        reason, text = ("JobSuspended", "Job suspended")
    rest = [item for item in conditions if item["type"] != "Suspended"]
    event = Emit(job, "Normal", reason.removeprefix("Job"), text)
    return [*rest, _condition("Suspended", wanted, reason, text, now)], (event,)


def _ended(
    job: Job, conditions: list[JobCondition], ending: Ending, settled: bool, now: datetime
) -> tuple[list[JobCondition], tuple[Emit, ...]]:
    """Adds the condition of the decision, and the final one when all pods are gone and counted
    (KEP-3998).
    """
    present = {item["type"] for item in conditions}
    target = "SuccessCriteriaMet" if ending.kind == "Complete" else "FailureTarget"
    decision = _condition(target, "True", ending.reason, ending.message, now)
    fresh = [] if target in present else [decision]
    if not settled:
        return [*conditions, *fresh], ()
    final = _condition(ending.kind, "True", ending.reason, ending.message, now)
    if ending.kind == "Complete":
        event = Emit(job, "Normal", "Completed", "Job completed")
    else:
        event = Emit(job, "Warning", ending.reason, ending.message)
    return [*conditions, *fresh, final], (event,)


def _until_deadline(job: Job, status: JobStatus, now: datetime) -> float | None:
    seconds = job["spec"].get("activeDeadlineSeconds")
    if seconds is None or not status.get("startTime"):
        return None
    end = parse_time(status["startTime"]) + timedelta(seconds=int(seconds))
    return max((end - now).total_seconds(), 0.0)


def _differs(held: Mapping[str, object], fresh: Mapping[str, object]) -> bool:
    return any((held.get(key) or None) != (fresh.get(key) or None) for key in {*held, *fresh})


def until_expired(job: Job, now: datetime) -> float | None:
    """Seconds until ttlSecondsAfterFinished is over, 0 or less if it is; None if it does not
    apply.
    """
    ttl = job["spec"].get("ttlSecondsAfterFinished")
    if ttl is None or not is_finished(job):
        return None
    ends = [
        parse_time(item["lastTransitionTime"])
        for item in (job.get("status") or {}).get("conditions") or []
        if item["type"] in ("Complete", "Failed") and item["status"] == "True"
    ]
    return (max(ends) + timedelta(seconds=int(ttl)) - now).total_seconds()
