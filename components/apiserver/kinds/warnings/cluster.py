"""Warnings about Nodes, ServiceAccounts, RuntimeClasses and CustomResourceDefinitions
(pkg/registry/core, apiextensions-apiserver/pkg/registry/customresourcedefinition).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kubewire.components.apiserver.kinds.warnings.nodelabels import DEPRECATED
from kubewire.components.kubeapi.resources import KubeObject

_MOUNTABLE = "kubernetes.io/enforce-mountable-secrets"

#: Formats of texts that a schema can check; dashes in their names do not count.
_TEXT_FORMATS = frozenset(
    "bsonobjectid uri email hostname ipv4 ipv6 cidr mac uuid uuid3 uuid4 uuid5 isbn isbn10 isbn13 "
    "creditcard ssn hexcolor rgbcolor byte password date duration datetime k8sshortname "
    "k8slongname".split()
)
_NUMBER_FORMATS = {"integer": ("int32", "int64"), "number": ("float", "double")}


def node(obj: KubeObject) -> list[str]:
    spec = obj.get("spec") or {}
    warnings = []
    if spec.get("configSource") is not None:
        warnings.append("spec.configSource: the feature is removed")
    if spec.get("externalID"):
        text = "this field is deprecated, and is unused by Kubernetes"
        warnings.append(f"spec.externalID: {text}")
    return warnings


def changed_node(new: KubeObject, old: KubeObject) -> list[str]:
    return node(new)


def service_account(obj: KubeObject) -> list[str]:
    if _MOUNTABLE not in (obj["metadata"].get("annotations") or {}):
        return []
    text = "prefer separate namespaces to isolate access to mounted secrets"
    return [f"metadata.annotations[{_MOUNTABLE}]: deprecated in v1.32+; {text}"]


def changed_service_account(new: KubeObject, old: KubeObject) -> list[str]:
    return [] if service_account(old) else service_account(new)


def runtime_class(obj: KubeObject) -> list[str]:
    labels = (obj.get("scheduling") or {}).get("nodeSelector") or {}
    path = "scheduling.nodeSelector"
    return [f"{path}: {DEPRECATED[key]}" for key in sorted(labels) if key in DEPRECATED]


def changed_runtime_class(new: KubeObject, old: KubeObject) -> list[str]:
    return runtime_class(new)


def definition(obj: KubeObject) -> list[str]:
    return [f'unrecognized format "{name}"' for name in _unknown_formats(obj)]


def changed_definition(new: KubeObject, old: KubeObject) -> list[str]:
    before = set(_unknown_formats(old))
    return [f'unrecognized format "{name}"' for name in _unknown_formats(new) if name not in before]


def _unknown_formats(obj: KubeObject) -> list[str]:
    """Formats in the schemas that nothing checks."""
    versions = (obj.get("spec") or {}).get("versions") or ()
    found = [
        str(schema["format"])
        for version in versions
        for schema in _schemas((version.get("schema") or {}).get("openAPIV3Schema"))
        if schema.get("format") and not _is_known(schema)
    ]
    return list(dict.fromkeys(found))


def _is_known(schema: dict[str, Any]) -> bool:
    kind = schema.get("type", "")
    if kind in ("", "string"):
        return str(schema["format"]).replace("-", "") in _TEXT_FORMATS
    return schema["format"] in _NUMBER_FORMATS.get(kind, ())


def _schemas(root: Any) -> Iterator[dict[str, Any]]:
    """The schema and all within it."""
    stack = [root]
    while stack:
        schema = stack.pop()
        if not isinstance(schema, dict):
            continue
        yield schema
        for key in ("items", "additionalProperties", "not", "additionalItems"):
            stack.append(schema.get(key))
        for key in ("allOf", "anyOf", "oneOf"):
            stack.extend(schema.get(key) or ())
        for key in ("properties", "patternProperties", "definitions"):
            stack.extend((schema.get(key) or {}).values())
