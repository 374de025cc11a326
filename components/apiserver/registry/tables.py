"""Other representations of an object: Table (server-side printing) and PartialObjectMetadata
(https://kubernetes.io/docs/reference/using-api/api-concepts/#receiving-resources-as-tables).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from kubewire.components.apiserver.kinds.spec import Column
from kubewire.components.apiserver.registry.catalog import Served
from kubewire.components.kubeapi.resources import KubeObject


def human_duration(seconds: float) -> str:
    """Formats as duration.HumanDuration of apimachinery: 5s, 2m30s, 15m, 3h5m, 26h, 2d5h, 30d,
    1y20d.
    """
    total = int(seconds)
    if total < -1:
        return "<invalid>"
    if total < 0:
        return "0s"
    if total < 120:
        return f"{total}s"
    minutes = total // 60
    hours = total // 3600
    days = total // 86400
    if minutes < 10:
        return _two(minutes, "m", total % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if hours < 192:
        return _two(days, "d", hours % 24, "h")
    if days < 730:
        return f"{days}d"
    if days < 365 * 8:
        return _two(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def _two(major: int, major_unit: str, minor: int, minor_unit: str) -> str:
    return f"{major}{major_unit}{minor}{minor_unit}" if minor else f"{major}{major_unit}"


def age(obj: KubeObject, now: datetime) -> str:
    created = obj["metadata"].get("creationTimestamp")
    if not created:
        return "<unknown>"
    return human_duration((now - datetime.fromisoformat(created)).total_seconds())


def partial_metadata(obj: KubeObject, version: str = "v1") -> KubeObject:
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": f"meta.k8s.io/{version}",
        "metadata": obj["metadata"],
    }


def table(
    served: Served,
    objects: Iterable[KubeObject],
    list_metadata: dict[str, Any],
    version: str,
    include: str,
) -> KubeObject:
    """A Table of the objects; include is None, Metadata or Object (the parameter includeObject)."""
    now = datetime.now(UTC)
    return {
        "kind": "Table",
        "apiVersion": f"meta.k8s.io/{version}",
        "metadata": list_metadata,
        "columnDefinitions": [_definition(column) for column in served.spec.columns],
        "rows": [_row(served, obj, now, version, include) for obj in objects],
    }


def _definition(column: Column) -> dict[str, Any]:
    return {
        "name": column.name,
        "type": column.type,
        "format": column.format,
        "description": column.description,
        "priority": column.priority,
    }


def _row(
    served: Served,
    obj: KubeObject,
    now: datetime,
    version: str,
    include: str,
) -> dict[str, Any]:
    render = served.spec.row
    cells = render(obj, now) if render else [obj["metadata"]["name"], age(obj, now)]
    if include == "None":
        return {"cells": cells}
    return {
        "cells": cells,
        "object": obj if include == "Object" else partial_metadata(obj, version),
    }
