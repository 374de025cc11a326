"""StatefulSet (apps/v1): k8s.io/kubernetes/pkg/registry/apps/statefulset."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kubewire.components.apiserver.kinds import cells, names
from kubewire.components.apiserver.kinds.fielderrors import (
    by_rule,
    forbidden,
    invalid,
    not_negative,
    one_of,
    required,
)
from kubewire.components.apiserver.kinds.pods.pod_defaults import default_pod_template
from kubewire.components.apiserver.kinds.spec import Column, FieldError, KindSpec, ScalePaths
from kubewire.components.apiserver.kinds.strategy import keep_all_but_status, keep_status
from kubewire.components.apiserver.kinds.workloads.workload import (
    int_or_percent,
    not_negative_fields,
    validate_selector_and_template,
)
from kubewire.components.kubeapi.resources import STATEFULSETS, KubeObject

COLUMNS = (
    cells.NAME,
    Column("Ready", "string", "", "Number of the pod with ready state"),
    cells.AGE,
    cells.CONTAINERS,
    cells.IMAGES,
)


#: availableReplicas is not among them, because it is always shown.
def default(obj: KubeObject) -> None:
    spec = obj.setdefault("spec", {})
    if not spec.get("podManagementPolicy"):
        spec["podManagementPolicy"] = "OrderedReady"
    strategy = spec.setdefault("updateStrategy", {})
    if not strategy.get("type"):
        strategy["type"] = "RollingUpdate"
    if strategy["type"] == "RollingUpdate":
        strategy.setdefault("rollingUpdate", {}).setdefault("partition", 0)
    retention = spec.setdefault("persistentVolumeClaimRetentionPolicy", {})
    for key in ("whenDeleted", "whenScaled"):
        if not retention.get(key):
            retention[key] = "Retain"
    spec.setdefault("replicas", 1)
    spec.setdefault("revisionHistoryLimit", 10)
    for claim in spec.get("volumeClaimTemplates") or ():
        claim.setdefault("apiVersion", "v1")
        claim.setdefault("kind", "PersistentVolumeClaim")
        claim.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")
        claim["status"] = {"phase": "Pending"}
    default_pod_template(spec.setdefault("template", {}))


def prepare_create(obj: KubeObject) -> None:
    obj["status"] = {"replicas": 0, "availableReplicas": 0}


def row(obj: KubeObject, now: datetime) -> list[Any]:
    spec = obj.get("spec") or {}
    status = obj.get("status") or {}
    return [
        cells.name(obj),
        f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}",
        cells.age(obj, now),
        *cells.containers(cells.at(spec, "template", "spec") or {}),
    ]


_MUTABLE = (
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
)


def validate_create(obj: KubeObject) -> list[FieldError]:
    spec = obj.get("spec") or {}
    errors = one_of(
        "spec.podManagementPolicy",
        spec.get("podManagementPolicy"),
        ("OrderedReady", "Parallel"),
    )
    errors += _strategy(spec.get("updateStrategy") or {})
    errors += not_negative_fields(
        spec,
        "spec",
        "replicas",
        "minReadySeconds",
        "revisionHistoryLimit",
    )
    start = (spec.get("ordinals") or {}).get("start")
    errors += not_negative("spec.ordinals.start", start)
    if spec.get("serviceName"):
        errors += by_rule(names.dns1123_subdomain, "spec.serviceName", spec["serviceName"])
    # Like upstream, this does not validate the template's pod: its volumes may come from
    # volumeClaimTemplates (ValidatePodTemplateSpecForStatefulSet).
    return errors + validate_selector_and_template(spec, "statefulset", whole=False)


def _strategy(strategy: dict[str, Any]) -> list[FieldError]:
    kind = strategy.get("type")
    rolling = strategy.get("rollingUpdate")
    path = "spec.updateStrategy"
    if kind == "OnDelete":
        if rolling is None:
            return []
        text = "only allowed for updateStrategy 'RollingUpdate'"
        return [invalid(f"{path}.rollingUpdate", rolling, text)]
    if kind != "RollingUpdate":
        text = "must be 'RollingUpdate' or 'OnDelete'"
        return [invalid(path, strategy, text)] if kind else [required(path)]
    errors = not_negative(f"{path}.rollingUpdate.partition", (rolling or {}).get("partition"))
    return errors + int_or_percent(
        f"{path}.rollingUpdate.maxUnavailable",
        (rolling or {}).get("maxUnavailable"),
    )


def validate_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    errors = validate_create(new)
    if _fixed(new) != _fixed(old):
        fields = ", ".join(f"'{name}'" for name in _MUTABLE[:-1])
        text = f"updates to statefulset spec for fields other than {fields} and '{_MUTABLE[-1]}'"
        text += " are forbidden"
        errors.append(forbidden("spec", text))
    return errors


def _fixed(obj: KubeObject) -> dict[str, Any]:
    spec = obj.get("spec") or {}
    return {key: value for key, value in spec.items() if key not in _MUTABLE and value}


KIND = KindSpec(
    resource=STATEFULSETS,
    singular="statefulset",
    generation=True,
    short_names=("sts",),
    categories=("all",),
    subresources=("status", "scale"),
    default=default,
    prepare_create=prepare_create,
    prepare_update=keep_status,
    prepare_status_update=keep_all_but_status,
    validate_create=validate_create,
    validate_update=validate_update,
    columns=COLUMNS,
    row=row,
    scale=ScalePaths(".spec.replicas", ".status.replicas", ".spec.selector"),
)
