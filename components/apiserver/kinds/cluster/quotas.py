"""LimitRange and ResourceQuota (core/v1); admission and a controller act on them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kubewire.components.apiserver.kinds import cells
from kubewire.components.apiserver.kinds.cluster import limitrange_validation, quota_validation
from kubewire.components.apiserver.kinds.spec import Column, KindSpec
from kubewire.components.apiserver.kinds.strategy import (
    empty_status,
    keep_all_but_status,
    keep_status,
)
from kubewire.components.kubeapi.resources import RESOURCEQUOTAS, KubeObject, Resource

LIMITRANGES: Resource[KubeObject] = Resource("", "v1", "limitranges", "LimitRange")


def default_limits(obj: KubeObject) -> None:
    """Derives containers' defaults: the limit from the maximum, the request from limit or
    minimum.
    """
    for item in cells.at(obj, "spec", "limits") or ():
        if item.get("type") != "Container":
            continue
        item["default"] = {**(item.get("max") or {}), **(item.get("default") or {})}
        requested = item.get("defaultRequest") or {}
        item["defaultRequest"] = {**(item.get("min") or {}), **item["default"], **requested}


def limits_row(obj: KubeObject, now: datetime) -> list[Any]:
    return [cells.name(obj), obj["metadata"].get("creationTimestamp", "")]


LIMITRANGE_KIND = KindSpec(
    resource=LIMITRANGES,
    singular="limitrange",
    short_names=("limits",),
    default=default_limits,
    validate_create=limitrange_validation.validate_create,
    validate_update=limitrange_validation.validate_update,
    columns=(cells.NAME, Column("Created At", "date", "", "The time of its creation.")),
    row=limits_row,
)


def quota_row(obj: KubeObject, now: datetime) -> list[Any]:
    hard = cells.at(obj, "status", "hard") or {}
    used = cells.at(obj, "status", "used") or {}
    texts = {key: f"{key}: {used.get(key, '0')}/{amount}" for key, amount in sorted(hard.items())}
    limits = [text for key, text in texts.items() if key.startswith("limits")]
    requests = [text for key, text in texts.items() if not key.startswith("limits")]
    return [cells.name(obj), ", ".join(requests), ", ".join(limits), cells.age(obj, now)]


RESOURCEQUOTA_KIND = KindSpec(
    resource=RESOURCEQUOTAS,
    singular="resourcequota",
    short_names=("quota",),
    subresources=("status",),
    prepare_create=empty_status,
    prepare_update=keep_status,
    prepare_status_update=keep_all_but_status,
    validate_create=quota_validation.validate_create,
    validate_update=quota_validation.validate_update,
    validate_status_update=quota_validation.validate_status_update,
    columns=(
        cells.NAME,
        Column("Request", "string", "", "Used and allowed amounts of requests."),
        Column("Limit", "string", "", "Used and allowed amounts of limits."),
        cells.AGE,
    ),
    row=quota_row,
)
