"""Validates a pod's volumes (ValidateVolumes of pkg/apis/core/validation/validation.go).

Only the sources that exist here are validated in depth: emptyDir, hostPath, secret, configMap,
downwardAPI, projected and persistentVolumeClaim.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kubewire.components.apiserver.kinds import names
from kubewire.components.apiserver.kinds.fielderrors import (
    by_rule,
    duplicate,
    forbidden,
    invalid,
    not_supported,
    required,
)
from kubewire.components.apiserver.kinds.pods.container_validation import (
    local_descending_path,
    no_backsteps,
)
from kubewire.components.apiserver.kinds.pods.environment_validation import (
    field_reference,
    resource_reference,
)
from kubewire.components.apiserver.kinds.spec import FieldError
from kubewire.components.kubeapi.quantity import parse_quantity

_VOLUME_FIELDS = (
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
)
_HOST_PATH_TYPES = (
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
)
_FILE_MODE = "must be a number between 0 and 0777 (octal), both inclusive"
_PROJECTIONS = (
    "secret",
    "downwardAPI",
    "configMap",
    "serviceAccountToken",
    "clusterTrustBundle",
    "podCertificate",
)
_SHORTEST_TOKEN_SECONDS = 600

Source = Mapping[str, Any]


def validate_volumes(volumes: Sequence[Mapping[str, Any]], path: str) -> list[FieldError]:
    errors = []
    seen = set[str]()
    for index, volume in enumerate(volumes):
        at = f"{path}[{index}]"
        name = volume.get("name") or ""
        sources = [key for key, value in volume.items() if key != "name" and value is not None]
        errors += (
            _source(sources[0], volume[sources[0]], f"{at}.{sources[0]}")
            if sources
            else [required(at, "must specify a volume type")]
        )
        errors += [
            forbidden(
                f"{at}.{key}",
                "may not specify more than 1 volume type",
            )
            for key in sources[1:]
        ]
        if not name:
            errors.append(required(f"{at}.name"))
        else:
            errors += by_rule(names.dns1123_label, f"{at}.name", name)
        if name in seen:
            errors.append(duplicate(f"{at}.name", name))
        seen.add(name)
    return errors


def _source(key: str, source: Source, path: str) -> list[FieldError]:
    match key:
        case "emptyDir":
            return _empty_dir(source, path)
        case "hostPath":
            return _host_path(source, path)
        case "secret":
            errors = [] if source.get("secretName") else [required(f"{path}.secretName")]
            errors += _file_mode(source.get("defaultMode"), f"{path}.defaultMode")
            return errors + _items(source, path)
        case "configMap":
            errors = [] if source.get("name") else [required(f"{path}.name")]
            errors += _file_mode(source.get("defaultMode"), f"{path}.defaultMode")
            return errors + _items(source, path)
        case "downwardAPI":
            errors = _file_mode(source.get("defaultMode"), f"{path}.defaultMode")
            return errors + _downward_files(source, path)
        case "projected":
            return _projected(source, path)
        case "persistentVolumeClaim":
            return [] if source.get("claimName") else [required(f"{path}.claimName")]
    return []


def _empty_dir(source: Source, path: str) -> list[FieldError]:
    size = source.get("sizeLimit")
    try:
        negative = size is not None and parse_quantity(size) < 0
    except ValueError:
        negative = False
    return (
        [
            forbidden(f"{path}.sizeLimit", "SizeLimit field must be a valid resource quantity"),
        ]
        if negative
        else []
    )


def _host_path(source: Source, path: str) -> list[FieldError]:
    target = source.get("path") or ""
    kind = source.get("type") or ""
    if not target:
        return [required(f"{path}.path")]
    errors = no_backsteps(target, f"{path}.path")
    if kind not in _HOST_PATH_TYPES:
        errors.append(not_supported(f"{path}.type", kind, _HOST_PATH_TYPES))
    return errors


def _file_mode(mode: int | None, path: str) -> list[FieldError]:
    return [invalid(path, mode, _FILE_MODE)] if mode is not None and not 0 <= mode <= 0o777 else []


def _items(source: Source, path: str) -> list[FieldError]:
    errors = []
    for index, item in enumerate(source.get("items") or ()):
        at = f"{path}.items[{index}]"
        errors += [required(f"{at}.key")] if not item.get("key") else []
        errors += _target(item.get("path") or "", f"{at}.path")
        errors += _file_mode(item.get("mode"), f"{at}.mode")
    return errors


def _target(target: str, path: str) -> list[FieldError]:
    """Validates a path inside the volume."""
    if not target:
        return [required(path)]
    errors = local_descending_path(target, path)
    if target.startswith("..") and not target.startswith("../"):
        errors.append(invalid(path, target, "must not start with '..'"))
    return errors


def _downward_files(source: Source, path: str) -> list[FieldError]:
    errors = []
    for index, item in enumerate(source.get("items") or ()):
        at = f"{path}[{index}]"
        errors += _target(item.get("path") or "", f"{at}.path")
        field = item.get("fieldRef")
        resource = item.get("resourceFieldRef")
        if field is not None:
            errors += field_reference(field, _VOLUME_FIELDS, f"{at}.fieldRef")
            if resource is not None:
                text = "fieldRef and resourceFieldRef can not be specified simultaneously"
                errors.append(invalid(at, "resource", text))
        elif resource is not None:
            errors += resource_reference(resource, f"{at}.resourceFieldRef", in_volume=True)
        else:
            errors.append(required(at, "one of fieldRef and resourceFieldRef is required"))
        errors += _file_mode(item.get("mode"), f"{at}.mode")
    return errors


def _projected(source: Source, path: str) -> list[FieldError]:
    errors = _file_mode(source.get("defaultMode"), f"{path}.defaultMode")
    for index, projection in enumerate(source.get("sources") or ()):
        at = f"{path}.sources[{index}]"
        given = [key for key in _PROJECTIONS if projection.get(key) is not None]
        for key in given[1:]:
            errors.append(
                forbidden(f"{at}.{key}", "may not specify more than 1 volume type per source"),
            )
        if not given:
            errors.append(required(at, "must specify a volume type"))
            continue
        errors += _projection(given[0], projection[given[0]], f"{at}.{given[0]}")
    return errors


def _projection(key: str, source: Source, path: str) -> list[FieldError]:
    if key in ("secret", "configMap"):
        errors = [] if source.get("name") else [required(f"{path}.name")]
        return errors + _items(source, path)
    if key == "downwardAPI":
        return _downward_files(source, path)
    if key != "serviceAccountToken":
        return []
    errors = []
    seconds = source.get("expirationSeconds", 3600)
    if seconds < _SHORTEST_TOKEN_SECONDS:
        text = "may not specify a duration less than 10 minutes"
        errors.append(invalid(f"{path}.expirationSeconds", seconds, text))
    elif seconds > 2**32:
        text = "may not specify a duration larger than 2^32 seconds"
        errors.append(invalid(f"{path}.expirationSeconds", seconds, text))
    if not source.get("path"):
        return [*errors, required(f"{path}.path")]
    return errors + _target(source["path"], f"{path}.path")
