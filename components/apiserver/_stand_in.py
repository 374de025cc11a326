"""Until the openapi package is there."""

from typing import Any
from components.apiserver import openapi

_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "conditions": "type",
    "addresses": "type",
    "ownerReferences": "uid",
    "finalizers": "set",
    "taints": "key",
    "podIPs": "ip",
    "hostIPs": "ip",
}


def _merge_key(group, version, kind, path):  # type: ignore
    if path[-1] == "ports":
        return "port" if kind == "Service" else "containerPort" if "containers" in path else None
    return _KEYS.get(path[-1])


merge_key = getattr(openapi, "merge_key", _merge_key)
unknown_fields: Any = getattr(openapi, "unknown_fields", lambda *a: [])
