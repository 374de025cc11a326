"""Other representations of an object: Table (server-side printing) and PartialObjectMetadata
(https://kubernetes.io/docs/reference/using-api/api-concepts/#receiving-resources-as-tables).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from kubewire.components.apiserver.kinds.duration import since
from kubewire.components.apiserver.kinds.spec import Column
from kubewire.components.apiserver.registry.catalog import Served
from kubewire.components.kubeapi.resources import KubeObject


def age(obj: KubeObject, now: datetime) -> str:
    return since(obj["metadata"].get("creationTimestamp"), now)


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
