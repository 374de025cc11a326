"""Functions that the strategies of most kinds share
(k8s.io/kubernetes/pkg/registry/*/strategy.go).
"""

from __future__ import annotations

from kubewire.components.kubeapi.resources import KubeObject


def without_nulls(value: KubeObject) -> None:
    """Removes nulls in place, because Go decodes `field: null` like an absent field."""
    stack: list[object] = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            for key in [key for key, inner in item.items() if inner is None]:
                del item[key]
            stack.extend(inner for inner in item.values() if isinstance(inner, dict | list))
        elif isinstance(item, list):
            stack.extend(inner for inner in item if isinstance(inner, dict | list))


def empty_status(obj: KubeObject) -> None:
    """Drops the status, which a client cannot set on creation."""
    obj["status"] = {}


def keep_status(new: KubeObject, old: KubeObject) -> None:
    """Keeps the old status, which an update of the object does not change."""
    if "status" in old:
        new["status"] = old["status"]
    else:
        new.pop("status", None)


def keep_all_but_status(new: KubeObject, old: KubeObject) -> None:
    """Keeps everything but the status and the metadata, for an update of the status."""
    changeable = ("apiVersion", "kind", "metadata", "status")
    for key in [key for key in new if key not in changeable and key not in old]:
        del new[key]
    for key, value in old.items():
        if key not in changeable:
            new[key] = value


def keep_all_but_status_and_labels(new: KubeObject, old: KubeObject) -> None:
    """Like keep_all_but_status, but keeps the labels too."""
    keep_all_but_status(new, old)
    if "labels" in old["metadata"]:
        new["metadata"]["labels"] = old["metadata"]["labels"]
    else:
        new["metadata"].pop("labels", None)
