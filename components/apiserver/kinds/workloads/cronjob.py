"""CronJob (batch/v1): pkg/apis/batch/v1/defaults.go, pkg/apis/batch/validation.

It is stored, and no controller runs it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kubewire.components.apiserver.kinds import cells
from kubewire.components.apiserver.kinds.duration import since
from kubewire.components.apiserver.kinds.fielderrors import not_negative, one_of, required
from kubewire.components.apiserver.kinds.pods.pod_defaults import default_pod_template
from kubewire.components.apiserver.kinds.spec import Column, FieldError, KindSpec
from kubewire.components.apiserver.kinds.strategy import (
    empty_status,
    keep_all_but_status,
    keep_status,
)
from kubewire.components.kubeapi.resources import KubeObject, Resource

CRONJOBS: Resource[KubeObject] = Resource("batch", "v1", "cronjobs", "CronJob")

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
    errors = [] if spec.get("schedule") else [required("spec.schedule")]
    errors += not_negative("spec.startingDeadlineSeconds", spec.get("startingDeadlineSeconds"))
    errors += one_of(
        "spec.concurrencyPolicy",
        spec.get("concurrencyPolicy"),
        ("Allow", "Forbid", "Replace"),
    )
    for key in ("successfulJobsHistoryLimit", "failedJobsHistoryLimit"):
        errors += not_negative(f"spec.{key}", spec.get(key))
    return errors


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
