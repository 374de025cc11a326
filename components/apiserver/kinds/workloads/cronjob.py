"""CronJob (batch/v1): pkg/apis/batch/v1/defaults.go, pkg/apis/batch/validation."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kubewire.components.apiserver.kinds import cells
from kubewire.components.apiserver.kinds.duration import since
from kubewire.components.apiserver.kinds.fielderrors import invalid, not_negative, one_of, required
from kubewire.components.apiserver.kinds.pods.pod_defaults import default_pod_template
from kubewire.components.apiserver.kinds.spec import Column, FieldError, KindSpec
from kubewire.components.apiserver.kinds.strategy import (
    empty_status,
    keep_all_but_status,
    keep_status,
)
from kubewire.components.kubeapi.resources import CRONJOBS, KubeObject

COLUMNS = (
    cells.NAME,
    Column("Schedule", "string", "", "When it runs, in cron's notation."),
    Column("Timezone", "string", "", "The time zone of the schedule."),
    Column("Suspend", "boolean", "", "Whether it is suspended."),
    Column("Active", "integer", "", "Number of jobs that run."),
    Column("Last Schedule", "string", "", "When it last created a job."),
    cells.AGE,
    cells.CONTAINERS,
    cells.IMAGES,
    cells.SELECTOR,
)


def default(obj: KubeObject) -> None:
    spec = obj.setdefault("spec", {})
    if not spec.get("concurrencyPolicy"):
        spec["concurrencyPolicy"] = "Allow"
    spec.setdefault("suspend", False)
    spec.setdefault("successfulJobsHistoryLimit", 3)
    spec.setdefault("failedJobsHistoryLimit", 1)
    default_pod_template(
        spec.setdefault("jobTemplate", {}).setdefault("spec", {}).setdefault("template", {}),
    )


def validate_create(obj: KubeObject) -> list[FieldError]:
    spec = obj.get("spec") or {}
    errors = _schedule(spec.get("schedule") or "", spec.get("timeZone"))
    errors += _time_zone(spec.get("timeZone"))
    name = cells.name(obj)
    if len(name) > _LONGEST_NAME:
        text = f"must be no more than {_LONGEST_NAME} characters"
        errors.append(invalid("metadata.name", name, text))
    errors += not_negative("spec.startingDeadlineSeconds", spec.get("startingDeadlineSeconds"))
    errors += one_of(
        "spec.concurrencyPolicy",
        spec.get("concurrencyPolicy"),
        ("Allow", "Forbid", "Replace"),
    )
    for key in ("successfulJobsHistoryLimit", "failedJobsHistoryLimit"):
        errors += not_negative(f"spec.{key}", spec.get(key))
    return errors


#: The name of a Job has 11 characters more, and that of a pod as a label has at most 63.
_LONGEST_NAME = 52


def _schedule(schedule: str, zone: str | None) -> list[FieldError]:
    if not schedule:
        return [required("spec.schedule")]
    if "TZ" in schedule:
        text = "cannot use both timeZone field and TZ or CRON_TZ in schedule"
        if zone is None:
            text = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
        return [invalid("spec.schedule", schedule, text)]
    from kubewire.components.kubeapi import cron

    try:
        cron.parse(schedule)
    except cron.CronError as error:
        return [invalid("spec.schedule", schedule, str(error))]
    return []


def _time_zone(zone: str | None) -> list[FieldError]:
    if zone is None:
        return []
    if not zone:
        return [invalid("spec.timeZone", zone, "timeZone must be nil or non-empty string")]
    if zone.lower() == "local":
        text = (
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
        )
        return [invalid("spec.timeZone", zone, text)]
    from zoneinfo import ZoneInfo

    try:
        ZoneInfo(zone)
    except (LookupError, ValueError, OSError):
        return [invalid("spec.timeZone", zone, f"unknown time zone {zone}")]
    return []


def validate_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    return validate_create(new)


def row(obj: KubeObject, now: datetime) -> list[Any]:
    spec = obj.get("spec") or {}
    status = obj.get("status") or {}
    last = status.get("lastScheduleTime")
    job = cells.at(spec, "jobTemplate", "spec") or {}
    return [
        cells.name(obj),
        spec.get("schedule", ""),
        spec.get("timeZone", cells.NONE),
        "True" if spec.get("suspend") else "False",
        len(status.get("active") or ()),
        since(last, now) if last else cells.NONE,
        cells.age(obj, now),
        *cells.containers(cells.at(job, "template", "spec") or {}),
        cells.selector(job.get("selector")),
    ]


KIND = KindSpec(
    resource=CRONJOBS,
    singular="cronjob",
    generation=True,
    short_names=("cj",),
    categories=("all",),
    subresources=("status",),
    default=default,
    prepare_create=empty_status,
    prepare_update=keep_status,
    prepare_status_update=keep_all_but_status,
    validate_create=validate_create,
    validate_update=validate_update,
    columns=COLUMNS,
    row=row,
)
