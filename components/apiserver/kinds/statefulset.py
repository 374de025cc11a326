"""StatefulSet (apps/v1): k8s.io/kubernetes/pkg/registry/apps/statefulset."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from components.apiserver.kinds import cells
from components.apiserver.kinds.pod_defaults import default_pod_template
from components.apiserver.kinds.spec import Column, KindSpec, ScalePaths
from components.apiserver.kinds.strategy import keep_all_but_status, keep_status
from components.machinery.resources import STATEFULSETS, KubeObject

COLUMNS = (
    cells.NAME,
    Column("Ready", "string", "", "Number of the pod with ready state"),
    cells.AGE,
    cells.CONTAINERS,
    cells.IMAGES,
)


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
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    return [
        cells.name(obj),
        f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}",
        cells.age(obj, now),
        *cells.containers(cells.at(spec, "template", "spec") or {}),
    ]


KIND = KindSpec(
    resource=STATEFULSETS,
    singular="statefulset",
    short_names=("sts",),
    categories=("all",),
    subresources=("status", "scale"),
    default=default,
    prepare_create=prepare_create,
    prepare_update=keep_status,
    prepare_status_update=keep_all_but_status,
    columns=COLUMNS,
    row=row,
    scale=ScalePaths(".spec.replicas", ".status.replicas", ".spec.selector"),
)
