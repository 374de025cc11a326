"""The kinds of objects that the compiler takes, with what translates each.

Pods, Namespaces, ServiceAccounts and Nodes are what policies select, and the Compiler joins them
itself. A new kind of policy is one entry of POLICIES.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kubewire.components.kubeapi.resources import (
    NAMESPACES,
    NETWORKPOLICIES,
    NODES,
    PODS,
    SERVICEACCOUNTS,
    Resource,
)
from kubewire.components.policy.compiler import clusterpolicies, networkpolicy
from kubewire.components.policy.compiler.calico import endpoints as calico_endpoints
from kubewire.components.policy.compiler.calico import translate as calico
from kubewire.components.policy.compiler.translation import Translation
from kubewire.components.policy.model import ObjectKey


@dataclass(frozen=True)
class Kind:
    """name: ObjectKey.kind, which is unique among all groups; the API's kind is not. resource: with
    which API group and by which path the API server serves it. needs: the names of the CORE kinds
    that its selectors read, beside pods and namespaces."""

    name: str
    resource: Resource[Any]
    translate: Callable[[Mapping[str, Any]], Translation]
    needs: tuple[str, ...] = ()


def _calico(plural: str, kind: str, *, namespaced: bool = False) -> Resource[Any]:
    return Resource("projectcalico.org", "v3", plural, kind, namespaced)


def _cluster(version: str, plural: str, kind: str) -> Resource[Any]:
    return Resource("policy.networking.k8s.io", version, plural, kind, namespaced=False)


_ACCOUNTS = ("ServiceAccount",)
_NODES = ("Node",)

POLICIES: tuple[Kind, ...] = (
    Kind("NetworkPolicy", NETWORKPOLICIES, networkpolicy.translate),
    Kind(
        "ClusterNetworkPolicy",
        _cluster("v1alpha2", "clusternetworkpolicies", "ClusterNetworkPolicy"),
        clusterpolicies.cluster_network_policy,
        needs=_NODES,
    ),
    Kind(
        "AdminNetworkPolicy",
        _cluster("v1alpha1", "adminnetworkpolicies", "AdminNetworkPolicy"),
        clusterpolicies.admin_network_policy,
        needs=_NODES,
    ),
    Kind(
        "BaselineAdminNetworkPolicy",
        _cluster("v1alpha1", "baselineadminnetworkpolicies", "BaselineAdminNetworkPolicy"),
        clusterpolicies.baseline_admin_network_policy,
        needs=_NODES,
    ),
    Kind(
        "CalicoNetworkPolicy",
        _calico("networkpolicies", "NetworkPolicy", namespaced=True),
        calico.network_policy,
        needs=_ACCOUNTS,
    ),
    Kind(
        "GlobalNetworkPolicy",
        _calico("globalnetworkpolicies", "GlobalNetworkPolicy"),
        calico.global_network_policy,
        needs=_ACCOUNTS,
    ),
    Kind("Tier", _calico("tiers", "Tier"), calico.tier),
    Kind(
        "NetworkSet",
        _calico("networksets", "NetworkSet", namespaced=True),
        calico_endpoints.network_set,
    ),
    Kind(
        "GlobalNetworkSet",
        _calico("globalnetworksets", "GlobalNetworkSet"),
        calico_endpoints.network_set,
    ),
    Kind("HostEndpoint", _calico("hostendpoints", "HostEndpoint"), calico_endpoints.host_endpoint),
)

#: What policies select, by ObjectKey.kind.
CORE: Mapping[str, Resource[Any]] = {
    resource.kind: resource for resource in (PODS, NAMESPACES, SERVICEACCOUNTS, NODES)
}

_BY_API: Mapping[tuple[str, str], Kind] = {
    (kind.resource.group, kind.resource.kind): kind for kind in POLICIES
}


def kind_of(obj: Mapping[str, Any]) -> Kind | None:
    """None if the object is no policy that the compiler knows. Any version of its group will do."""
    return _BY_API.get((_group(obj), str(obj.get("kind", ""))))


def key_of(obj: Mapping[str, Any]) -> ObjectKey | None:
    """The key of an object, None if the compiler has no use for objects of its kind, or the object
    has no name. One without a namespace, as a file may have it, is one of `default`."""
    kind = kind_of(obj)
    if kind is not None:
        name, resource = kind.name, kind.resource
    elif not _group(obj) and str(obj.get("kind")) in CORE:
        name = str(obj["kind"])
        resource = CORE[name]
    else:
        return None
    metadata = obj.get("metadata")
    if not isinstance(metadata, Mapping):
        return None
    named, namespace = metadata.get("name"), metadata.get("namespace") or "default"
    if not (named and isinstance(named, str) and isinstance(namespace, str)):
        return None
    return ObjectKey(name, namespace if resource.namespaced else "", named)


def _group(obj: Mapping[str, Any]) -> str:
    """The API group, "" for the core group. What Calico's API server has as projectcalico.org, it
    stores as crd.projectcalico.org, with the same spec."""
    group, slash, _ = str(obj.get("apiVersion", "")).partition("/")
    return group.removeprefix("crd.") if slash else ""
