"""Job (batch/v1): k8s.io/kubernetes/pkg/registry/batch/job, pkg/apis/batch/v1/defaults.go."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from kubewire.components.apiserver.kinds import cells
from kubewire.components.apiserver.kinds.duration import human_duration, parse_time
from kubewire.components.apiserver.kinds.fielderrors import immutable, one_of, required
from kubewire.components.apiserver.kinds.pods.pod_defaults import default_pod_template
from kubewire.components.apiserver.kinds.spec import Column, FieldError, KindSpec
from kubewire.components.apiserver.kinds.strategy import keep_all_but_status, keep_status
from kubewire.components.apiserver.kinds.workloads.workload import (
    not_negative_fields,
    selector_is_immutable,
    validate_selector_and_template,
)
from kubewire.components.kubeapi.resources import JOBS, KubeObject

COLUMNS = (
    cells.NAME,
    Column("Status", "string", "", "Status of the job."),
    Column("Completions", "string", "", "The number of pods that succeeded, of those needed."),
    Column("Duration", "string", "", "Time required to complete the job."),
    cells.AGE,
    cells.CONTAINERS,
    cells.IMAGES,
    cells.SELECTOR,
)
_UID_LABELS = ("batch.kubernetes.io/controller-uid", "controller-uid")
_NAME_LABELS = ("batch.kubernetes.io/job-name", "job-name")


def default(job: KubeObject) -> None:
    _default_spec(job.setdefault("spec", {}))
    _generate_selector(job)


def _default_spec(spec: dict[str, Any]) -> None:
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    spec.setdefault("parallelism", 1)
    if "backoffLimit" not in spec:
        spec["backoffLimit"] = 2147483647 if "backoffLimitPerIndex" in spec else 6
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    spec.setdefault("manualSelector", False)
    if "podReplacementPolicy" not in spec:
        policy = "Failed" if spec.get("podFailurePolicy") else "TerminatingOrFailed"
        spec["podReplacementPolicy"] = policy
    for rule in cells.at(spec, "podFailurePolicy", "rules") or ():
        for pattern in rule.get("onPodConditions") or ():
            pattern.setdefault("status", "True")
    default_pod_template(spec.setdefault("template", {}))


def _generate_selector(job: KubeObject) -> None:
    """Selects the pods by the Job's uid unless the user sets a selector (generateSelector).

    It runs when the uid is known; on creation the registry sets the uid before the defaults.
    """
    spec = job["spec"]
    uid = job["metadata"].get("uid")
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
    spec = job.get("spec") or {}
    status = job.get("status") or {}
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
    conditions = status.get("conditions") or ()
    true = {item.get("type") for item in conditions if item.get("status") == "True"}
    for kind in ("Complete", "Failed"):
        if kind in true:
            return kind
    if job["metadata"].get("deletionTimestamp"):
        return "Terminating"
    return next(
        (kind for kind in ("Suspended", "FailureTarget", "SuccessCriteriaMet") if kind in true),
        "Running",
    )


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
    return human_duration(
        ((parse_time(status.get("completionTime")) or now) - start).total_seconds(),
    )


def selectable_fields(job: KubeObject) -> dict[str, str]:
    return {"status.successful": str(cells.at(job, "status", "succeeded") or 0)}


def validate_create(job: KubeObject) -> list[FieldError]:
    spec = job.get("spec") or {}
    counts = (
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    )
    errors = not_negative_fields(spec, "spec", *counts)
    errors += one_of("spec.completionMode", spec.get("completionMode"), ("Indexed", "NonIndexed"))
    if spec.get("completionMode") == "Indexed" and spec.get("completions") is None:
        errors.append(required("spec.completions", "when completion mode is Indexed"))
    errors += validate_selector_and_template(spec, "job", ("Always", "OnFailure", "Never"))
    if cells.at(spec, "template", "spec", "restartPolicy") == "Always":
        # kubectl users meet this error first, because the default policy of pods is not valid for
        # jobs.
        errors.append(
            required("spec.template.spec.restartPolicy", 'valid values: "OnFailure", "Never"'),
        )
    return errors


def validate_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    """Keeps selector, template and completionMode.

    The template may change while the Job is suspended and has not started. completions of an
    Indexed Job may change together with parallelism.
    """
    after = new.get("spec") or {}
    before = old.get("spec") or {}
    errors = validate_create(new)
    is_indexed = after.get("completionMode") == "Indexed"
    if not (is_indexed and after.get("completions") == after.get("parallelism")):
        errors += immutable("spec.completions", after.get("completions"), before.get("completions"))
    errors += selector_is_immutable(new, old)
    waiting = before.get("suspend") and not (old.get("status") or {}).get("startTime")
    if not waiting:
        errors += immutable("spec.template", after.get("template"), before.get("template"))
    errors += immutable(
        "spec.completionMode",
        after.get("completionMode"),
        before.get("completionMode"),
    )
    for key in ("podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"):
        errors += immutable(f"spec.{key}", after.get(key), before.get(key))
    return errors


KIND = KindSpec(
    resource=JOBS,
    singular="job",
    generation=True,
    categories=("all",),
    subresources=("status",),
    default=default,
    prepare_create=prepare_create,
    prepare_update=keep_status,
    prepare_status_update=keep_all_but_status,
    validate_create=validate_create,
    validate_update=validate_update,
    columns=COLUMNS,
    row=row,
    selectable_fields=selectable_fields,
)
