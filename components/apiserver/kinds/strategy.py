"""What most kinds' create and update strategies share (k8s.io/kubernetes/pkg/registry/*/strategy.go)."""

from __future__ import annotations

from kubewire.components.kubeapi.resources import KubeObject


def without_nulls(value: KubeObject) -> None:
    """Drops nulls, in place: Go decodes `field: null` as the field's absence."""
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
    """A client cannot create an object with a status."""
    obj["status"] = {}


def keep_status(new: KubeObject, old: KubeObject) -> None:
    """An update of the object leaves its status alone."""
    if "status" in old:
        new["status"] = old["status"]
    else:
        new.pop("status", None)


def keep_all_but_status(new: KubeObject, old: KubeObject) -> None:
    """An update of the status leaves everything else alone; labels and annotations may change with it."""
    for key in [key for key in new if key not in ("apiVersion", "kind", "metadata", "status") and key not in old]:
        del new[key]
    for key, value in old.items():
        if key not in ("apiVersion", "kind", "metadata", "status"):
            new[key] = value


def keep_all_but_status_and_labels(new: KubeObject, old: KubeObject) -> None:
    """As keep_all_but_status; the labels stay as well."""
    keep_all_but_status(new, old)
    if "labels" in old["metadata"]:
        new["metadata"]["labels"] = old["metadata"]["labels"]
    else:
        new["metadata"].pop("labels", None)
