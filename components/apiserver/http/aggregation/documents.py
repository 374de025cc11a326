"""Turns the APIResourceList of a server behind into entries of aggregated discovery."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kubewire.components.kubeapi.resources import KubeObject


def discovered(group: str, version: str, listed: Iterable[KubeObject]) -> tuple[KubeObject, ...]:
    """The APIResourceDiscovery of each resource of an APIResourceList, with its subresources."""
    found: dict[str, KubeObject] = {}
    subresources: dict[str, list[KubeObject]] = {}
    for item in listed:
        name, _, subresource = str(item.get("name", "")).partition("/")
        if subresource:
            entry = {
                "subresource": subresource,
                "responseKind": _kind(group, version, item),
                "verbs": item.get("verbs") or [],
            }
            subresources.setdefault(name, []).append(entry)
        elif name:
            found[name] = _resource(group, version, item)
    for name, entries in subresources.items():
        if name in found:
            found[name]["subresources"] = entries
    return tuple(found[name] for name in sorted(found))


def _resource(group: str, version: str, item: KubeObject) -> KubeObject:
    entry: dict[str, Any] = {
        "resource": item["name"],
        "responseKind": _kind(group, version, item),
        "scope": "Namespaced" if item.get("namespaced") else "Cluster",
        "singularResource": item.get("singularName") or "",
        "verbs": item.get("verbs") or [],
    }
    for key in ("shortNames", "categories"):
        if item.get(key):
            entry[key] = item[key]
    return entry


def _kind(group: str, version: str, item: KubeObject) -> KubeObject:
    return {
        "group": item.get("group") or group,
        "version": item.get("version") or version,
        "kind": item.get("kind") or "",
    }
