"""The kinds of CSI drivers (storage.k8s.io/v1): pkg/apis/storage/validation.

No driver runs here; they are served for programs that read or write them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kubewire.components.apiserver.kinds import cells, names
from kubewire.components.apiserver.kinds.fielderrors import (
    by_rule,
    duplicate,
    forbidden,
    if_one_of,
    immutable,
    invalid,
    required,
)
from kubewire.components.apiserver.kinds.labelselectors import validate_selector
from kubewire.components.apiserver.kinds.spec import Column, FieldError, KindSpec
from kubewire.components.apiserver.kinds.strategy import (
    empty_status,
    keep_all_but_status,
    keep_status,
)
from kubewire.components.kubeapi.resources import KubeObject, Resource


def _resource(plural: str, kind: str, namespaced: bool = False) -> Resource[KubeObject]:
    return Resource("storage.k8s.io", "v1", plural, kind, namespaced=namespaced)


_GROUP_POLICIES = ("File", "None", "ReadWriteOnceWithFSType")
_DRIVER_FLAGS = {
    "attachRequired": True,
    "podInfoOnMount": False,
    "requiresRepublish": False,
    "seLinuxMount": False,
    "storageCapacity": False,
}


def default_driver(obj: KubeObject) -> None:
    spec = obj.setdefault("spec", {})
    for key, value in _DRIVER_FLAGS.items():
        spec.setdefault(key, value)
    spec.setdefault("fsGroupPolicy", "ReadWriteOnceWithFSType")
    if not spec.get("volumeLifecycleModes"):
        spec["volumeLifecycleModes"] = ["Persistent"]


def validate_driver(obj: KubeObject) -> list[FieldError]:
    spec = obj.get("spec") or {}
    errors = if_one_of("spec.fsGroupPolicy", spec.get("fsGroupPolicy"), _GROUP_POLICIES)
    for mode in spec.get("volumeLifecycleModes") or ():
        errors += if_one_of("spec.volumeLifecycleModes", mode, ("Ephemeral", "Persistent"))
    return errors


def validate_driver_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    fresh, before = (obj.get("spec") or {} for obj in (new, old))
    errors = validate_driver(new)
    for key in ("attachRequired", "volumeLifecycleModes"):
        errors += immutable(f"spec.{key}", fresh.get(key), before.get(key))
    return errors


def driver_row(obj: KubeObject, now: datetime) -> list[Any]:
    spec = obj.get("spec") or {}
    audiences = [item.get("audience", "") for item in spec.get("tokenRequests") or ()]
    return [
        cells.name(obj),
        spec.get("attachRequired", True),
        spec.get("podInfoOnMount", False),
        spec.get("storageCapacity", False),
        ",".join(audiences) or cells.UNSET,
        spec.get("requiresRepublish", False),
        ",".join(spec.get("volumeLifecycleModes") or ()),
        cells.age(obj, now),
    ]


DRIVER_KIND = KindSpec(
    resource=_resource("csidrivers", "CSIDriver"),
    singular="csidriver",
    generation=True,
    default=default_driver,
    validate_create=validate_driver,
    validate_update=validate_driver_update,
    columns=(
        cells.NAME,
        Column("AttachRequired", "boolean", "", "Whether volumes are attached to nodes."),
        Column("PodInfoOnMount", "boolean", "", "Whether the driver is told about the pod."),
        Column("StorageCapacity", "boolean", "", "Whether the scheduler asks for free capacity."),
        Column("TokenRequests", "string", "", "The audiences of the tokens that it gets."),
        Column("RequiresRepublish", "boolean", "", "Whether it is called again from time to time."),
        Column("Modes", "string", "", "The life cycles of its volumes."),
        cells.AGE,
    ),
    row=driver_row,
)


def validate_node(obj: KubeObject) -> list[FieldError]:
    errors = []
    seen = set[str]()
    for index, driver in enumerate((obj.get("spec") or {}).get("drivers") or ()):
        at = f"spec.drivers[{index}]"
        name = driver.get("name") or ""
        if not name:
            errors.append(required(f"{at}.name"))
        elif name in seen:
            errors.append(duplicate(f"{at}.name", name))
        seen.add(name)
        if not driver.get("nodeID"):
            errors.append(required(f"{at}.nodeID"))
        count = (driver.get("allocatable") or {}).get("count")
        if count is not None and count < 0:
            errors.append(invalid(f"{at}.allocatable.count", count, names.NOT_NEGATIVE))
    return errors


NODE_KIND = KindSpec(
    resource=_resource("csinodes", "CSINode"),
    singular="csinode",
    validate_create=validate_node,
    validate_update=lambda new, old: validate_node(new),
    columns=(
        cells.NAME,
        Column("Drivers", "integer", "", "The number of drivers on the node."),
        cells.AGE,
    ),
    row=lambda obj, now: [
        cells.name(obj),
        len((obj.get("spec") or {}).get("drivers") or ()),
        cells.age(obj, now),
    ],
)


def validate_capacity(obj: KubeObject) -> list[FieldError]:
    name = obj.get("storageClassName") or ""
    errors = validate_selector(obj.get("nodeTopology"), "nodeTopology")
    return errors + by_rule(names.dns1123_subdomain, "storageClassName", name)


def validate_capacity_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    errors = validate_capacity(new)
    for key in ("nodeTopology", "storageClassName"):
        errors += immutable(key, new.get(key), old.get(key))
    return errors


CAPACITY_KIND = KindSpec(
    resource=_resource("csistoragecapacities", "CSIStorageCapacity", True),
    singular="csistoragecapacity",
    validate_create=validate_capacity,
    validate_update=validate_capacity_update,
    columns=(
        cells.NAME,
        Column("StorageClassName", "string", "", "The class to which the capacity applies."),
        Column("Capacity", "string", "", "The size of what is free."),
    ),
    row=lambda obj, now: [
        cells.name(obj),
        obj.get("storageClassName", ""),
        obj.get("capacity") or cells.UNSET,
    ],
)


def validate_attachment(obj: KubeObject) -> list[FieldError]:
    spec = obj.get("spec") or {}
    errors = [required(f"spec.{key}") for key in ("attacher", "nodeName") if not spec.get(key)]
    source = spec.get("source") or {}
    if not source.get("persistentVolumeName") and not source.get("inlineVolumeSpec"):
        text = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
        errors.append(required("spec.source", text))
    return errors


def validate_attachment_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    errors = validate_attachment(new)
    if (new.get("spec") or {}) != (old.get("spec") or {}):
        errors.append(invalid("spec", new.get("spec"), names.IMMUTABLE))
    return errors


ATTACHMENT_KIND = KindSpec(
    resource=_resource("volumeattachments", "VolumeAttachment"),
    singular="volumeattachment",
    subresources=("status",),
    prepare_create=empty_status,
    prepare_update=keep_status,
    prepare_status_update=keep_all_but_status,
    validate_create=validate_attachment,
    validate_update=validate_attachment_update,
    columns=(
        cells.NAME,
        Column("Attacher", "string", "", "The driver that attaches it."),
        Column("PV", "string", "", "The volume."),
        Column("Node", "string", "", "The node."),
        Column("Attached", "boolean", "", "Whether it is attached."),
        cells.AGE,
    ),
    row=lambda obj, now: [
        cells.name(obj),
        cells.at(obj, "spec", "attacher") or "",
        cells.at(obj, "spec", "source", "persistentVolumeName") or "",
        cells.at(obj, "spec", "nodeName") or "",
        bool(cells.at(obj, "status", "attached")),
        cells.age(obj, now),
    ],
)


def validate_attributes(obj: KubeObject) -> list[FieldError]:
    errors = [] if obj.get("driverName") else [required("driverName")]
    if not obj.get("parameters"):
        errors.append(required("parameters", "must contain at least one key/value pair"))
    return errors


def validate_attributes_update(new: KubeObject, old: KubeObject) -> list[FieldError]:
    errors = validate_attributes(new)
    for key in ("driverName", "parameters"):
        if new.get(key) != old.get(key):
            errors.append(forbidden(key, f"updates to {key} are forbidden."))
    return errors


ATTRIBUTES_KIND = KindSpec(
    resource=_resource("volumeattributesclasses", "VolumeAttributesClass"),
    singular="volumeattributesclass",
    short_names=("vac",),
    validate_create=validate_attributes,
    validate_update=validate_attributes_update,
    columns=(
        cells.NAME,
        Column("DriverName", "string", "", "The driver that knows the parameters."),
        cells.AGE,
    ),
    row=lambda obj, now: [cells.name(obj), obj.get("driverName", ""), cells.age(obj, now)],
)
