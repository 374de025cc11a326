"""Warnings about objects that make pods (pkg/registry/apps, pkg/registry/batch)."""

from __future__ import annotations

from kubewire.components.apiserver.kinds import names
from kubewire.components.apiserver.kinds.warnings.amounts import claim_warnings
from kubewire.components.apiserver.kinds.warnings.pods import go_list, template_warnings
from kubewire.components.kubeapi.resources import KubeObject

_HISTORY = (
    "spec.revisionHistoryLimit: a negative value retains all historical revisions; "
    "a value >= 0 is recommended"
)
_MANY_INDEXES = (
    "In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than "
    "10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes "
    "fail"
)
_TIME_ZONE = (
    "CRON_TZ or TZ used in spec.spec.schedule is not officially supported, see "
    "https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
)


def named(obj: KubeObject) -> list[str]:
    """About a name that becomes part of the pods' hostnames."""
    wrong = names.dns1123_label(obj["metadata"].get("name", ""))
    if not wrong:
        return []
    text = "this is used in Pod names and hostnames, which can result in surprising behavior"
    return [f"metadata.name: {text}; a DNS label is recommended: {go_list(wrong)}"]


def template(obj: KubeObject) -> list[str]:
    spec = obj.get("spec") or {}
    return template_warnings(spec.get("template") or {}, "spec.template")


def changed_template(new: KubeObject, old: KubeObject) -> list[str]:
    """About the template, unless only metadata or the status has changed."""
    if new["metadata"].get("generation") == old["metadata"].get("generation"):
        return []
    return template(new)


def named_template(obj: KubeObject) -> list[str]:
    return named(obj) + template(obj)


def pod_template(obj: KubeObject) -> list[str]:
    return template_warnings(obj.get("template") or {}, "template")


def changed_pod_template(new: KubeObject, old: KubeObject) -> list[str]:
    return pod_template(new)


def stateful_set(obj: KubeObject) -> list[str]:
    return _stateful_set(obj, "")


def changed_stateful_set(new: KubeObject, old: KubeObject) -> list[str]:
    unchanged = new["metadata"].get("generation") == old["metadata"].get("generation")
    # Upstream's paths at updates have this part, those at creations have not.
    warnings = _stateful_set(new, ".Spec")
    return [text for text in warnings if text == _HISTORY] if unchanged else warnings


def _stateful_set(obj: KubeObject, part: str) -> list[str]:
    spec = obj.get("spec") or {}
    warnings = template(obj)
    for index, claim in enumerate(spec.get("volumeClaimTemplates") or ()):
        path = f"spec.volumeClaimTemplates[{index}]{part}"
        warnings += claim_warnings(claim.get("spec") or {}, path)
    limit = spec.get("revisionHistoryLimit")
    return [*warnings, _HISTORY] if limit is not None and limit < 0 else warnings


def job(obj: KubeObject) -> list[str]:
    return named(obj) + _job_spec(obj.get("spec") or {}, "spec")


def changed_job(new: KubeObject, old: KubeObject) -> list[str]:
    return _job_spec(new.get("spec") or {}, "spec")


def _job_spec(spec: KubeObject, path: str) -> list[str]:
    many = (spec.get("completions") or 0) > 100_000 and (spec.get("parallelism") or 0) > 10_000
    warnings = []
    if many and spec.get("completionMode") == "Indexed":
        warnings.append(f"{path}: {_MANY_INDEXES}")
    return warnings + template_warnings(spec.get("template") or {}, f"{path}.template")


def cron_job(obj: KubeObject) -> list[str]:
    return named(obj) + _cron_job(obj)


def changed_cron_job(new: KubeObject, old: KubeObject) -> list[str]:
    return _cron_job(new)


def _cron_job(obj: KubeObject) -> list[str]:
    spec = obj.get("spec") or {}
    jobs = (spec.get("jobTemplate") or {}).get("spec") or {}
    warnings = _job_spec(jobs, "spec.jobTemplate.spec")
    return [*warnings, _TIME_ZONE] if "TZ" in (spec.get("schedule") or "") else warnings
