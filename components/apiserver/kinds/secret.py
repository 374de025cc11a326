"""Secret (core/v1): k8s.io/kubernetes/pkg/registry/core/secret/strategy.go."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Any

from components.apiserver.kinds import cells
from components.apiserver.kinds.spec import Column, KindSpec
from components.machinery.resources import SECRETS, KubeObject

COLUMNS = (
    cells.NAME,
    Column("Type", "string", "", "What the data is for."),
    Column("Data", "string", "", "How many keys the secret has."),
    cells.AGE,
)


def default(obj: KubeObject) -> None:
    if not obj.get("type"):
        obj["type"] = "Opaque"
    plain = obj.pop("stringData", None)
    if isinstance(plain, dict) and plain:
        encoded = {key: base64.b64encode(str(value).encode()).decode() for key, value in plain.items()}
        obj["data"] = {**(obj.get("data") or {}), **encoded}


def row(obj: KubeObject, now: datetime) -> list[Any]:
    return [cells.name(obj), obj.get("type", ""), len(obj.get("data") or {}), cells.age(obj, now)]


def selectable_fields(obj: KubeObject) -> dict[str, str]:
    return {"type": obj.get("type", "")}


KIND = KindSpec(
    resource=SECRETS,
    singular="secret",
    default=default,
    columns=COLUMNS,
    row=row,
    selectable_fields=selectable_fields,
)
