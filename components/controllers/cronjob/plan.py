"""Plans the next step of a CronJob (pkg/controller/cronjob, cronjob_controllerv2.go).

The time for which a Job is due is the latest one of the schedule that has passed, so a controller
that was away starts one Job and not all that it missed. The name of a Job contains this time: a
second Job for the same time cannot exist.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from kubewire.components.controllers.actions import (
    Action,
    Create,
    Delete,
    Emit,
    Plan,
    Report,
    Update,
)
from kubewire.components.controllers.meta import (
    condition,
    controller_reference,
    created_at,
    format_time,
    is_deleting,
    parse_time,
)
from kubewire.components.kubeapi import cron
from kubewire.components.kubeapi.resources import CRONJOBS, JOBS

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import CronJob, CronJobStatus, Job

_SCHEDULED = "batch.kubernetes.io/cronjob-scheduled-timestamp"
#: More missed times than this point to a clock that is wrong.
_MANY = 100
#: Seconds by which the controller wakes up after the time, because clocks differ.
_LATE = 0.1
_TOO_MANY = (
    "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
)


@dataclass(frozen=True)
class _Due:
    """The latest time that has passed since the last Job, if there is one, and the next one."""

    scheduled: datetime | None
    next: datetime | None
    missed: int


def plan(cronjob: CronJob, jobs: Sequence[Job], now: datetime) -> Plan:
    """jobs are those that the CronJob controls."""
    status = _observed(cronjob, jobs)
    news = _news(cronjob, jobs)
    if is_deleting(cronjob):
        return Plan((*news, *_write(cronjob, status)))
    tidying = _old_jobs(cronjob, jobs)
    step = _step(cronjob, jobs, status, now)
    actions = (*news, *tidying, *step.actions, *_write(cronjob, status))
    return Plan(actions, step.requeue_after)


def finished(job: Job) -> str:
    """Complete, Failed or "" for a Job that has not finished."""
    for kind in ("Complete", "Failed"):
        found = condition(job.get("status"), kind)
        if found is not None and found.get("status") == "True":
            return kind
    return ""


def _observed(cronjob: CronJob, jobs: Sequence[Job]) -> CronJobStatus:
    """The status as the Jobs show it; the step may add to it."""
    held = cronjob.get("status") or {}
    status: CronJobStatus = {}
    running = sorted((job for job in jobs if not finished(job)), key=created_at)
    if running:
        status["active"] = [_reference(job) for job in running]
    if last := held.get("lastScheduleTime"):
        status["lastScheduleTime"] = last
    ended = [job["status"].get("completionTime") for job in jobs if finished(job) == "Complete"]
    known = [time for time in [held.get("lastSuccessfulTime"), *ended] if time]
    if known:
        status["lastSuccessfulTime"] = max(known, key=parse_time)
    return status


def _reference(job: Job) -> Any:
    metadata = job["metadata"]
    return {
        "kind": "Job",
        "apiVersion": "batch/v1",
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "resourceVersion": metadata["resourceVersion"],
    }


def _news(cronjob: CronJob, jobs: Sequence[Job]) -> list[Action]:
    """What became of the Jobs that were running when the status was written."""
    by_uid = {job["metadata"]["uid"]: job for job in jobs}
    events: list[Action] = []
    for reference in (cronjob.get("status") or {}).get("active") or []:
        job = by_uid.get(reference["uid"])
        name = reference["name"]
        if job is None:
            text = f"Active job went missing: {name}"
            events.append(Emit(cronjob, "Normal", "MissingJob", text))
        elif outcome := finished(job):
            text = f"Saw completed job: {name}, condition: {outcome}"
            events.append(Emit(cronjob, "Normal", "SawCompletedJob", text))
    return events


def _old_jobs(cronjob: CronJob, jobs: Sequence[Job]) -> list[Action]:
    """Deletes the oldest of the finished Jobs beyond the limits of the history."""
    limits = {"Complete": "successfulJobsHistoryLimit", "Failed": "failedJobsHistoryLimit"}
    actions: list[Action] = []
    for outcome, key in limits.items():
        limit = cronjob["spec"].get(key)
        if limit is None:
            continue
        of_kind = [job for job in jobs if finished(job) == outcome and not is_deleting(job)]
        of_kind.sort(key=lambda job: (_started(job), job["metadata"]["name"]))
        surplus = of_kind[: max(len(of_kind) - int(str(limit)), 0)]
        actions += [_delete(cronjob, job) for job in surplus]
    return actions


def _started(job: Job) -> datetime:
    started = (job.get("status") or {}).get("startTime")
    return parse_time(started) if started else created_at(job)


def _delete(cronjob: CronJob, job: Job) -> Delete:
    metadata = job["metadata"]
    report = Report(
        cronjob,
        "SuccessfulDelete",
        f"Deleted job {metadata['name']}",
        "FailedDelete",
        "Deleted job: {error}",
    )
    return Delete(
        JOBS,
        metadata["namespace"],
        metadata["name"],
        metadata["uid"],
        report,
        propagation_policy="Background",
    )


def _step(cronjob: CronJob, jobs: Sequence[Job], status: CronJobStatus, now: datetime) -> Plan:
    spec = cronjob["spec"]
    if spec.get("suspend"):
        return Plan()
    try:
        zone = time_zone(spec.get("timeZone"))
    except (LookupError, ValueError, OSError) as error:
        text = f'invalid timeZone: "{spec.get("timeZone")}": {error}'
        return Plan((Emit(cronjob, "Warning", "UnknownTimeZone", text),))
    try:
        schedule = cron.parse(spec["schedule"])
    except cron.CronError as error:
        text = f'unparseable schedule: "{spec["schedule"]}" : {error}'
        return Plan((Emit(cronjob, "Warning", "UnparseableSchedule", text),))
    due = _due(cronjob, schedule, zone, now)
    wait = None if due.next is None else max((due.next - now).total_seconds(), 0) + _LATE
    if due.scheduled is None:
        return Plan((), wait)
    actions: list[Action] = []
    if due.missed > _MANY:
        actions.append(Emit(cronjob, "Warning", "TooManyMissedTimes", _TOO_MANY))
    actions += _start(cronjob, jobs, status, due.scheduled, zone, now)
    return Plan(tuple(actions), wait)


def time_zone(name: str | None) -> tzinfo:
    """Raises LookupError or ValueError for an unknown name."""
    return UTC if name is None else ZoneInfo(name)


def _due(cronjob: CronJob, schedule: cron.Schedule, zone: tzinfo, now: datetime) -> _Due:
    last = (cronjob.get("status") or {}).get("lastScheduleTime")
    earliest = parse_time(last) if last else created_at(cronjob)
    deadline = cronjob["spec"].get("startingDeadlineSeconds")
    if deadline is not None:
        earliest = max(earliest, now - timedelta(seconds=int(deadline)))
    scheduled = None
    missed = 0
    following = schedule.next(earliest, zone)
    while following is not None and following <= now:
        scheduled = following
        missed += 1
        if missed > _MANY:
            # The rest is skipped: only the latest time matters.
            scheduled = _latest(schedule, zone, now, scheduled)
        following = schedule.next(scheduled, zone)
    return _Due(scheduled, following, missed)


def _latest(
    schedule: cron.Schedule,
    zone: tzinfo,
    now: datetime,
    known: datetime,
) -> datetime:
    """The latest time of the schedule that is not after now, at or after a known one."""
    if isinstance(schedule, cron.Every):
        rounds = int((now - known).total_seconds()) // schedule.seconds
        return known + timedelta(seconds=rounds * schedule.seconds)
    low, high = known, now
    while (middle := low + (high - low) / 2) - low > timedelta(seconds=1):
        found = schedule.next(middle, zone)
        if found is not None and found <= now:
            low = found
        else:
            high = middle
    return low


def _start(
    cronjob: CronJob,
    jobs: Sequence[Job],
    status: CronJobStatus,
    scheduled: datetime,
    zone: tzinfo,
    now: datetime,
) -> list[Action]:
    """Creates the Job of a time, unless the deadline or a running Job forbids it."""
    spec = cronjob["spec"]
    deadline = spec.get("startingDeadlineSeconds")
    if deadline is not None and scheduled + timedelta(seconds=int(deadline)) < now:
        when = scheduled.astimezone(zone).strftime("%a, %d %b %Y %H:%M:%S %z")
        text = f"Missed scheduled time to start a job: {when}"
        return [Emit(cronjob, "Warning", "MissSchedule", text)]
    name = f"{cronjob['metadata']['name']}-{int(scheduled.timestamp()) // 60}"
    if any(job["metadata"]["name"] == name for job in jobs):
        status["lastScheduleTime"] = format_time(scheduled)
        return []
    running = [job for job in jobs if not finished(job)]
    policy = spec.get("concurrencyPolicy", "Allow")
    if policy == "Forbid" and running:
        text = (
            "Not starting job because prior execution is running and concurrency policy is Forbid"
        )
        return [Emit(cronjob, "Normal", "JobAlreadyActive", text)]
    actions: list[Action] = []
    if policy == "Replace" and running:
        actions += [_delete(cronjob, job) for job in running if not is_deleting(job)]
        status.pop("active", None)
    status["lastScheduleTime"] = format_time(scheduled)
    return [*actions, _create(cronjob, name, scheduled.astimezone(zone))]


def _create(cronjob: CronJob, name: str, scheduled: datetime) -> Create:
    template = cronjob["spec"]["jobTemplate"]
    metadata = template.get("metadata") or {}
    stamp = scheduled.isoformat(timespec="seconds").replace("+00:00", "Z")
    job: dict[str, Any] = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": cronjob["metadata"]["namespace"],
            "labels": dict(metadata.get("labels") or {}),
            "annotations": {**(metadata.get("annotations") or {}), _SCHEDULED: stamp},
            "ownerReferences": [controller_reference(cronjob)],
        },
        "spec": copy.deepcopy(template["spec"]),
    }
    report = Report(
        cronjob,
        "SuccessfulCreate",
        "Created job {name}",
        "FailedCreate",
        "Error creating job: {error}",
    )
    return Create(JOBS, job, report)


def _write(cronjob: CronJob, status: CronJobStatus) -> tuple[Action, ...]:
    held = cronjob.get("status") or {}
    if _compared(held) == _compared(status):
        return ()
    return (Update(CRONJOBS, {**cronjob, "status": status}, "status"),)


def _compared(status: CronJobStatus) -> object:
    active = [item["uid"] for item in status.get("active") or []]
    return active, status.get("lastScheduleTime"), status.get("lastSuccessfulTime")
