"""The kinds of objects that the compiler takes, with what translates each.

Pods, Namespaces, ServiceAccounts and Nodes are not here: they are what policies select, and the
Compiler joins them itself. A new kind of policy is one line here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kubewire.components.policy.compiler import networkpolicy
from kubewire.components.policy.compiler.calico import endpoints as calico_endpoints
from kubewire.components.policy.compiler.calico import translate as calico
from kubewire.components.policy.compiler.translation import Translation
from kubewire.components.policy.model import ObjectKey


@dataclass(frozen=True)
class Kind:
    """name: ObjectKey.kind, which is unique among all groups; the API's kind is not. namespaced:
    whether an object without a namespace, as files may have it, is one of `default`."""

    name: str
    translate: Callable[[Mapping[str, Any]], Translation]
    namespaced: bool = False


_CALICO = "projectcalico.org"

#: (API group, kind) -> what it is to the compiler.
KINDS: Mapping[tuple[str, str], Kind] = {
    ("networking.k8s.io", "NetworkPolicy"): Kind(
        "NetworkPolicy", networkpolicy.translate, namespaced=True
    ),
    (_CALICO, "NetworkPolicy"): Kind("CalicoNetworkPolicy", calico.network_policy, namespaced=True),
    (_CALICO, "GlobalNetworkPolicy"): Kind("GlobalNetworkPolicy", calico.global_network_policy),
    (_CALICO, "Tier"): Kind("Tier", calico.tier),
    (_CALICO, "NetworkSet"): Kind("NetworkSet", calico_endpoints.network_set, namespaced=True),
    (_CALICO, "GlobalNetworkSet"): Kind("GlobalNetworkSet", calico_endpoints.network_set),
    (_CALICO, "HostEndpoint"): Kind("HostEndpoint", calico_endpoints.host_endpoint),
}

_CORE = {"Pod": True, "ServiceAccount": True, "Namespace": False, "Node": False}


def group_of(obj: Mapping[str, Any]) -> str:
    """The API group of an object, "" for the core group."""
    group, slash, _ = str(obj.get("apiVersion", "")).partition("/")
    return group if slash else ""


def kind_of(obj: Mapping[str, Any]) -> Kind | None:
    """None if the compiler has no use for the object as a policy."""
    return KINDS.get((group_of(obj), str(obj.get("kind", ""))))


def key_of(obj: Mapping[str, Any]) -> ObjectKey | None:
    """The key of an object, None if the compiler has no use for objects of its kind."""
    kind = kind_of(obj)
    if kind is not None:
        name, namespaced = kind.name, kind.namespaced
    elif not group_of(obj) and obj.get("kind") in _CORE:
        name = str(obj["kind"])
        namespaced = _CORE[name]
    else:
        return None
    metadata = obj["metadata"]
    namespace = (metadata.get("namespace") or "default") if namespaced else ""
    return ObjectKey(name, namespace, metadata["name"])
