"""ConfigMap (core/v1): k8s.io/kubernetes/pkg/registry/core/configmap/strategy.go."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kubewire.components.apiserver.kinds import cells
from kubewire.components.apiserver.kinds.config.datakeys import (
    MOST_BYTES,
    decoded_size,
    immutable_data,
    validate_keys,
)
from kubewire.components.apiserver.kinds.fielderrors import invalid
from kubewire.components.apiserver.kinds.spec import Column, FieldError, KindSpec
from kubewire.components.kubeapi.resources import CONFIGMAPS, KubeObject

COLUMNS = (cells.NAME, Column("Data", "string", "", "The number of keys."), cells.AGE)


def validate_create(obj: KubeObject) -> list[FieldError]:
    data = obj.get("data") or {}
    binary = obj.get("binaryData") or {}
    errors = validate_keys(data, "data") + validate_keys(binary, "binaryData")
    for key in data:
        if key in binary:
            errors.append(invalid(f"data[{key}]", key, "duplicate of key present in binaryData"))
    size = sum(len(value.encode()) for value in data.values()) + decoded_size(binary)
    if size > MOST_BYTES:
        # field.Path prints the whole object as "[]".
        errors.append(FieldError("TooLong", "[]", "", f"may not be more than {MOST_BYTES} bytes"))
    return errors


def validate_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    return immutable_data(new, old, ("data", "binaryData")) + validate_create(new)


def row(obj: KubeObject, now: datetime) -> list[Any]:
    keys = len(obj.get("data") or {}) + len(obj.get("binaryData") or {})
    return [cells.name(obj), keys, cells.age(obj, now)]


KIND = KindSpec(
    resource=CONFIGMAPS,
    singular="configmap",
    short_names=("cm",),
    validate_create=validate_create,
    validate_update=validate_update,
    columns=COLUMNS,
    row=row,
)
