"""Discovery: the groups, versions and resources that the server has.

It exists in an aggregated form (KEP-3352) and as one document per group, which older clients read.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from kubewire.components.apiserver.kinds.spec import Subresource
from kubewire.components.apiserver.registry.catalog import Catalog, Served, group_rank, version_rank
from kubewire.components.kubeapi.resources import KubeObject

_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
_STATUS_VERBS = ("get", "patch", "update")


@dataclass(frozen=True)
class VirtualKind:
    """A resource that is not stored: the reviews, which support only create, and what is computed
    when it is asked for (computed.py), which supports only get and list.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = False
    verbs: tuple[str, ...] = ("create",)
    short_names: tuple[str, ...] = ()
    deprecation: str = ""

    @property
    def singular(self) -> str:
        """metrics-server has none, because they would be those of nodes and pods."""
        return "" if self.group == "metrics.k8s.io" else self.kind.lower()


_READ = ("get", "list")
#: The groupPriorityMinimum of groups of custom resources; their versions have a tenth of it.
CUSTOM_PRIORITY = 1000

VIRTUAL_KINDS = (
    VirtualKind("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview"),
    VirtualKind("authentication.k8s.io", "v1", "tokenreviews", "TokenReview"),
    VirtualKind(
        "authorization.k8s.io",
        "v1",
        "localsubjectaccessreviews",
        "LocalSubjectAccessReview",
        True,
    ),
    VirtualKind(
        "authorization.k8s.io",
        "v1",
        "selfsubjectaccessreviews",
        "SelfSubjectAccessReview",
    ),
    VirtualKind("authorization.k8s.io", "v1", "selfsubjectrulesreviews", "SelfSubjectRulesReview"),
    VirtualKind("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview"),
    VirtualKind(
        "",
        "v1",
        "componentstatuses",
        "ComponentStatus",
        verbs=_READ,
        short_names=("cs",),
        deprecation="v1 ComponentStatus is deprecated in v1.19+",
    ),
    VirtualKind("metrics.k8s.io", "v1beta1", "nodes", "NodeMetrics", verbs=_READ),
    VirtualKind("metrics.k8s.io", "v1beta1", "pods", "PodMetrics", True, verbs=_READ),
)

_SCALE = Subresource("scale", "Scale", _STATUS_VERBS, "autoscaling", "v1")


def subresources(served: Served) -> list[Subresource]:
    declared = list(served.spec.more_subresources)
    if "scale" in served.spec.subresources:
        declared.append(_SCALE)
    if "status" in served.spec.subresources:
        declared.append(Subresource("status", served.kind, _STATUS_VERBS))
    return sorted(declared, key=lambda item: item.name)


def verbs(served: Served) -> list[str]:
    without = {"deletecollection"} if served.storage == "namespaces" else set()
    return [verb for verb in _VERBS if verb not in without]


def group_versions(catalog: Catalog) -> dict[str, list[str]]:
    """Maps each group to its versions, the preferred one first; groups are in upstream's order."""
    versions: dict[str, set[str]] = {}
    served = [(item.group, item.version) for item in catalog.all()]
    virtual = [(item.group, item.version) for item in VIRTUAL_KINDS]
    for group, version in [*served, *virtual, *catalog.remote]:
        versions.setdefault(group, set()).add(version)
    highest: dict[str, int] = {}
    for (group, _), remote in catalog.remote.items():
        highest[group] = max(remote.priority, highest.get(group, 0))

    def rank(group: str) -> tuple[int, int, str]:
        place, name = group_rank(group)
        return (place, -highest.get(group, CUSTOM_PRIORITY) if name else 0, name)

    def order(group: str, version: str) -> tuple[int, tuple[int, int, int, str]]:
        remote = catalog.remote.get((group, version))
        priority = CUSTOM_PRIORITY // 10 if remote is None else remote.version_priority
        return (-priority, version_rank(version))

    return {
        group: sorted(versions[group], key=partial(order, group))
        for group in sorted(versions, key=rank)
    }


def aggregated(catalog: Catalog, core: bool, version: str) -> KubeObject:
    """The APIGroupDiscoveryList of /api (core) or /apis; version is v2 or v2beta1."""
    groups = group_versions(catalog)
    served = _by_version(catalog)
    names = [group for group in groups if (group == "") == core]
    items = [_group_discovery(catalog, served, group, groups[group]) for group in names]
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"apidiscovery.k8s.io/{version}",
        "metadata": {},
        "items": items,
    }


def _by_version(catalog: Catalog) -> dict[tuple[str, str], list[Served]]:
    by_version: dict[tuple[str, str], list[Served]] = {}
    for served in catalog.all():
        by_version.setdefault((served.group, served.version), []).append(served)
    return by_version


def _group_discovery(
    catalog: Catalog,
    served: dict[tuple[str, str], list[Served]],
    group: str,
    versions: list[str],
) -> KubeObject:
    metadata: dict[str, Any] = {"creationTimestamp": None}
    if group:
        metadata["name"] = group
    entries: list[KubeObject] = []
    for version in versions:
        remote = catalog.remote.get((group, version))
        if remote is None:
            own = served.get((group, version), [])
            resources = _resource_discoveries(own, group, version)
        else:
            resources = list(remote.resources)
        fresh = "Current" if remote is None or remote.fresh else "Stale"
        entries.append({"version": version, "resources": resources, "freshness": fresh})
    return {"metadata": metadata, "versions": entries}


def _resource_discoveries(resources: list[Served], group: str, version: str) -> list[KubeObject]:
    items = [_discovery(served) for served in resources]
    items += [
        {
            "resource": virtual.plural,
            "responseKind": {"group": group, "version": version, "kind": virtual.kind},
            "scope": "Namespaced" if virtual.namespaced else "Cluster",
            "singularResource": virtual.singular,
            "verbs": list(virtual.verbs),
            **({"shortNames": list(virtual.short_names)} if virtual.short_names else {}),
        }
        for virtual in VIRTUAL_KINDS
        if (virtual.group, virtual.version) == (group, version)
    ]
    return sorted(items, key=lambda item: item["resource"])


def _discovery(served: Served) -> KubeObject:
    spec = served.spec
    item: KubeObject = {
        "resource": served.plural,
        "responseKind": {"group": served.group, "version": served.version, "kind": served.kind},
        "scope": "Namespaced" if served.namespaced else "Cluster",
        "singularResource": spec.singular,
        "verbs": verbs(served),
    }
    if spec.short_names:
        item["shortNames"] = list(spec.short_names)
    if spec.categories:
        item["categories"] = list(spec.categories)
    if declared := subresources(served):
        item["subresources"] = [
            {
                "subresource": subresource.name,
                "responseKind": {
                    "group": subresource.group if subresource.version else served.group,
                    "version": subresource.version or served.version,
                    "kind": subresource.kind,
                },
                "verbs": list(subresource.verbs),
            }
            for subresource in declared
        ]
    return item


def _of(all_served: Iterable[Served], group: str, version: str) -> list[Served]:
    return [served for served in all_served if (served.group, served.version) == (group, version)]


def api_versions(advertised: str) -> KubeObject:
    """The document of /api."""
    addresses = [{"clientCIDR": "0.0.0.0/0", "serverAddress": advertised}]
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": addresses}


def api_group_list(catalog: Catalog) -> KubeObject:
    """The document of /apis."""
    named = [(group, versions) for group, versions in group_versions(catalog).items() if group]
    groups = [_api_group(group, versions) for group, versions in named]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def api_group(catalog: Catalog, group: str) -> KubeObject | None:
    """The document of /apis/GROUP, or None when there is no such group."""
    versions = group_versions(catalog).get(group)
    if not group or not versions:
        return None
    return {"kind": "APIGroup", "apiVersion": "v1"} | _api_group(group, versions)


def _api_group(group: str, versions: list[str]) -> KubeObject:
    entries = [{"groupVersion": f"{group}/{version}", "version": version} for version in versions]
    return {"name": group, "versions": entries, "preferredVersion": entries[0]}


def api_resource_list(catalog: Catalog, group: str, version: str) -> KubeObject | None:
    """The document of /api/v1 or /apis/GROUP/VERSION, or None when there is no such version."""
    if version not in group_versions(catalog).get(group, []):
        return None
    resources: list[KubeObject] = []
    for served in _of(catalog.all(), group, version):
        resources += _api_resources(served)
    resources += [
        {
            "name": virtual.plural,
            "singularName": virtual.singular,
            "namespaced": virtual.namespaced,
            "kind": virtual.kind,
            "verbs": list(virtual.verbs),
            **({"shortNames": list(virtual.short_names)} if virtual.short_names else {}),
        }
        for virtual in VIRTUAL_KINDS
        if (virtual.group, virtual.version) == (group, version)
    ]
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": sorted(resources, key=lambda item: item["name"]),
    }


def _api_resources(served: Served) -> list[KubeObject]:
    spec = served.spec
    main: KubeObject = {
        "name": served.plural,
        "singularName": spec.singular,
        "namespaced": served.namespaced,
        "kind": served.kind,
        "verbs": verbs(served),
        "storageVersionHash": _hash(served),
    }
    if spec.short_names:
        main["shortNames"] = list(spec.short_names)
    if spec.categories:
        main["categories"] = list(spec.categories)
    return [main, *(_api_subresource(served, subresource) for subresource in subresources(served))]


def _api_subresource(served: Served, subresource: Subresource) -> KubeObject:
    item: KubeObject = {
        "name": f"{served.plural}/{subresource.name}",
        "singularName": "",
        "namespaced": served.namespaced,
        "kind": subresource.kind,
        "verbs": list(subresource.verbs),
    }
    if subresource.version:
        item |= {"group": subresource.group, "version": subresource.version}
    return item


def _hash(served: Served) -> str:
    number = zlib.crc32(f"{served.storage_version}/{served.kind}".encode())
    return base64.b64encode(number.to_bytes(8, "big")).decode()
