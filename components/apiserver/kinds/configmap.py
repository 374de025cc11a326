"""ConfigMap (core/v1): k8s.io/kubernetes/pkg/registry/core/configmap/strategy.go."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from components.apiserver.kinds import cells
from components.apiserver.kinds.spec import Column, KindSpec
from components.machinery.resources import CONFIGMAPS, KubeObject

COLUMNS = (cells.NAME, Column("Data", "string", "", "How many keys the map has."), cells.AGE)


def row(obj: KubeObject, now: datetime) -> list[Any]:
    keys = len(obj.get("data") or {}) + len(obj.get("binaryData") or {})
    return [cells.name(obj), keys, cells.age(obj, now)]


KIND = KindSpec(
    resource=CONFIGMAPS,
    singular="configmap",
    short_names=("cm",),
    columns=COLUMNS,
    row=row,
)
