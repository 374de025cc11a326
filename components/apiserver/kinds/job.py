"""Job (batch/v1): k8s.io/kubernetes/pkg/registry/batch/job, pkg/apis/batch/v1/defaults.go."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from components.apiserver.kinds import cells
from components.apiserver.kinds.duration import human_duration, parse_time
from components.apiserver.kinds.pod_defaults import default_pod_template
from components.apiserver.kinds.spec import Column, KindSpec
from components.apiserver.kinds.strategy import keep_all_but_status, keep_status
from components.machinery.resources import JOBS, KubeObject

COLUMNS = (
    cells.NAME,
    Column("Status", "string", "", "Status of the job."),
    Column("Completions", "string", "", "How many pods succeeded, of how many."),
    Column("Duration", "string", "", "Time required to complete the job."),
    cells.AGE,
    cells.CONTAINERS,
    cells.IMAGES,
    cells.SELECTOR,
)
_UID_LABELS = ("batch.kubernetes.io/controller-uid", "controller-uid")
_NAME_LABELS = ("batch.kubernetes.io/job-name", "job-name")


def default(job: KubeObject) -> None:
    default_spec(job.setdefault("spec", {}))
    _generate_selector(job)


def default_spec(spec: dict[str, Any]) -> None:
    """The defaults of a JobSpec; a CronJob's template gets them too."""
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    spec.setdefault("parallelism", 1)
    if "backoffLimit" not in spec:
        spec["backoffLimit"] = 2147483647 if "backoffLimitPerIndex" in spec else 6
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    spec.setdefault("manualSelector", False)
    if "podReplacementPolicy" not in spec:
        spec["podReplacementPolicy"] = "Failed" if spec.get("podFailurePolicy") else "TerminatingOrFailed"
    for rule in cells.at(spec, "podFailurePolicy", "rules") or ():
        for pattern in rule.get("onPodConditions") or ():
            pattern.setdefault("status", "True")
    default_pod_template(spec.setdefault("template", {}))


def _generate_selector(job: KubeObject) -> None:
    """Pods of a Job carry its uid, unless the user selects by hand (batch/job/strategy.go generateSelector).

    Runs once the uid is known: on create the core has filled it in before the defaults.
    """
    spec, uid = job["spec"], job["metadata"].get("uid")
    if spec.get("manualSelector") or not uid or spec.get("selector"):
        return
    labels = spec["template"].setdefault("metadata", {}).setdefault("labels", {})
    for key in _UID_LABELS:
        labels.setdefault(key, uid)
    for key in _NAME_LABELS:
        labels.setdefault(key, job["metadata"].get("name", ""))
    spec["selector"] = {"matchLabels": {_UID_LABELS[0]: uid}}


def prepare_create(job: KubeObject) -> None:
    job["status"] = {}


def row(job: KubeObject, now: datetime) -> list[Any]:
    spec, status = job.get("spec") or {}, job.get("status") or {}
    return [
        cells.name(job),
        _status(job, status),
        _completions(spec, status),
        _duration(status, now),
        cells.age(job, now),
        *cells.containers(cells.at(spec, "template", "spec") or {}),
        cells.selector(spec.get("selector")),
    ]


def _status(job: KubeObject, status: Mapping[str, Any]) -> str:
    true = {one.get("type") for one in status.get("conditions") or () if one.get("status") == "True"}
    for kind in ("Complete", "Failed"):
        if kind in true:
            return kind
    if job["metadata"].get("deletionTimestamp"):
        return "Terminating"
    return next((kind for kind in ("Suspended", "FailureTarget", "SuccessCriteriaMet") if kind in true), "Running")


def _completions(spec: Mapping[str, Any], status: Mapping[str, Any]) -> str:
    done = status.get("succeeded", 0)
    if spec.get("completions") is not None:
        return f"{done}/{spec['completions']}"
    parallelism = spec.get("parallelism") or 0
    return f"{done}/1 of {parallelism}" if parallelism > 1 else f"{done}/1"


def _duration(status: Mapping[str, Any], now: datetime) -> str:
    start = parse_time(status.get("startTime"))
    if start is None:
        return ""
    return human_duration(((parse_time(status.get("completionTime")) or now) - start).total_seconds())


def selectable_fields(job: KubeObject) -> dict[str, str]:
    return {"status.successful": str(cells.at(job, "status", "succeeded") or 0)}


KIND = KindSpec(
    resource=JOBS,
    singular="job",
    categories=("all",),
    subresources=("status",),
    default=default,
    prepare_create=prepare_create,
    prepare_update=keep_status,
    prepare_status_update=keep_all_but_status,
    columns=COLUMNS,
    row=row,
    selectable_fields=selectable_fields,
)
