"""Secret (core/v1): k8s.io/kubernetes/pkg/registry/core/secret/strategy.go."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Any

from kubewire.components.apiserver.kinds import cells
from kubewire.components.apiserver.kinds.config.datakeys import (
    MOST_BYTES,
    decoded_size,
    immutable_data,
    validate_keys,
)
from kubewire.components.apiserver.kinds.fielderrors import immutable, required
from kubewire.components.apiserver.kinds.spec import Column, FieldError, KindSpec
from kubewire.components.kubeapi.resources import SECRETS, KubeObject

COLUMNS = (
    cells.NAME,
    Column("Type", "string", "", "The purpose of the data."),
    Column("Data", "string", "", "The number of keys."),
    cells.AGE,
)


def default(obj: KubeObject) -> None:
    if not obj.get("type"):
        obj["type"] = "Opaque"
    plain = obj.pop("stringData", None)
    if isinstance(plain, dict) and plain:
        texts = {key: str(value) for key, value in plain.items()}
        encoded = {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()}
        obj["data"] = {**(obj.get("data") or {}), **encoded}


_ACCOUNT_NAME = "kubernetes.io/service-account.name"
#: The keys that a secret of this type must have.
_NEEDED_KEYS = {
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}


def validate_create(obj: KubeObject) -> list[FieldError]:
    data = obj.get("data") or {}
    kind = obj.get("type", "")
    errors = validate_keys(data, "data")
    if decoded_size(data) > MOST_BYTES:
        errors.append(FieldError("TooLong", "data", "", f"may not be more than {MOST_BYTES} bytes"))
    errors += [required(f"data[{key}]") for key in _NEEDED_KEYS.get(kind, ()) if key not in data]
    if kind == "kubernetes.io/basic-auth" and not {"username", "password"} & set(data):
        errors += [required("data[username]"), required("data[password]")]
    if kind == "kubernetes.io/service-account-token":
        annotations = obj["metadata"].get("annotations") or {}
        if not annotations.get(_ACCOUNT_NAME):
            errors.append(required(f"metadata.annotations[{_ACCOUNT_NAME}]"))
    return errors


def validate_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    errors = immutable("type", new.get("type"), old.get("type"))
    return errors + immutable_data(new, old, ("data",)) + validate_create(new)


def row(obj: KubeObject, now: datetime) -> list[Any]:
    return [cells.name(obj), obj.get("type", ""), len(obj.get("data") or {}), cells.age(obj, now)]


def selectable_fields(obj: KubeObject) -> dict[str, str]:
    return {"type": obj.get("type", "")}


KIND = KindSpec(
    resource=SECRETS,
    singular="secret",
    default=default,
    validate_create=validate_create,
    validate_update=validate_update,
    columns=COLUMNS,
    row=row,
    selectable_fields=selectable_fields,
)
