"""APIService (apiregistration.k8s.io/v1): kube-aggregator/pkg/apis/apiregistration/validation."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kubewire.components.apiserver.kinds import cells
from kubewire.components.apiserver.kinds.fielderrors import forbidden, invalid, required
from kubewire.components.apiserver.kinds.spec import Column, FieldError, KindSpec
from kubewire.components.apiserver.kinds.strategy import (
    empty_status,
    keep_all_but_status,
    keep_status,
)
from kubewire.components.kubeapi.resources import KubeObject, Resource

APISERVICES: Resource[KubeObject] = Resource(
    "apiregistration.k8s.io", "v1", "apiservices", "APIService", namespaced=False
)


def default(obj: KubeObject) -> None:
    service = (obj.get("spec") or {}).get("service")
    if isinstance(service, dict):
        service.setdefault("port", 443)


def validate_create(obj: KubeObject) -> list[FieldError]:
    spec = obj.get("spec") or {}
    version, group = spec.get("version") or "", spec.get("group") or ""
    wanted = f"{version}.{group}"
    errors = []
    if cells.name(obj) != wanted:
        text = f'must be `spec.version+"."+spec.group`: {wanted!r}'.replace("'", '"')
        errors.append(invalid("metadata.name", cells.name(obj), text))
    if not version:
        errors.append(required("spec.version"))
    for key in ("groupPriorityMinimum", "versionPriority"):
        value = spec.get(key) or 0
        most = 20_000 if key == "groupPriorityMinimum" else 1000
        if not 0 < value <= most:
            text = f"must be positive and less than {most}"
            errors.append(invalid(f"spec.{key}", value, text))
    service = spec.get("service")
    if service is None:
        return errors
    errors += [
        required(f"spec.service.{key}") for key in ("namespace", "name") if not service.get(key)
    ]
    if spec.get("insecureSkipTLSVerify") and spec.get("caBundle"):
        text = "may not be true if caBundle is present"
        errors.append(forbidden("spec.insecureSkipTLSVerify", text))
    return errors


def row(obj: KubeObject, now: datetime) -> list[Any]:
    service = cells.at(obj, "spec", "service")
    place = f"{service.get('namespace', '')}/{service.get('name', '')}" if service else "Local"
    conditions = cells.at(obj, "status", "conditions") or ()
    available = next((item for item in conditions if item.get("type") == "Available"), None)
    state = "Unknown" if available is None else available["status"]
    if available is not None and state != "True":
        state = f"{state} ({available.get('reason', '')})"
    return [cells.name(obj), place, state, cells.age(obj, now)]


KIND = KindSpec(
    resource=APISERVICES,
    singular="apiservice",
    categories=("api-extensions",),
    subresources=("status",),
    default=default,
    prepare_create=empty_status,
    prepare_update=keep_status,
    prepare_status_update=keep_all_but_status,
    validate_create=validate_create,
    validate_update=lambda new, old: validate_create(new),
    columns=(
        cells.NAME,
        Column("Service", "string", "", "The Service behind it, or Local."),
        Column("Available", "string", "", "Whether it answers."),
        cells.AGE,
    ),
    row=row,
)


def local(group: str, version: str, priority: int) -> KubeObject:
    """The object of a version that this server has itself."""
    labels = {"kube-aggregator.kubernetes.io/automanaged": "onstart"}
    spec: KubeObject = {"version": version, "groupPriorityMinimum": priority, "versionPriority": 15}
    if group:
        spec["group"] = group
    return {"metadata": {"name": f"{version}.{group}", "labels": labels}, "spec": spec}
