"""Plans the rules of an aggregated ClusterRole
(k8s.io/kubernetes/pkg/controller/clusterroleaggregation).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kubewire.components.controllers.actions import Action, Patch
from kubewire.components.kubeapi.resources import KubeObject, Resource
from kubewire.components.kubeapi.selectors import LabelSelector

CLUSTERROLES: Resource[KubeObject] = Resource(
    "rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False
)


def plan(role: Mapping[str, Any], roles: Iterable[Mapping[str, Any]]) -> tuple[Action, ...]:
    """Returns at most one write: the rules of all other selected roles, in the order of their
    names, each rule once."""
    aggregation = role.get("aggregationRule")
    if aggregation is None:
        return ()
    selectors = [
        LabelSelector.from_object(selector)
        for selector in aggregation.get("clusterRoleSelectors") or ()
    ]
    name = role["metadata"]["name"]
    rules: list[Any] = []
    for other in sorted(roles, key=lambda one: str(one["metadata"]["name"])):
        labels = other["metadata"].get("labels") or {}
        selected = any(selector.matches(labels) for selector in selectors)
        if selected and other["metadata"]["name"] != name:
            rules += [rule for rule in other.get("rules") or () if rule not in rules]
    if rules == (role.get("rules") or []):
        return ()
    version = role["metadata"]["resourceVersion"]
    patch = {"metadata": {"resourceVersion": version}, "rules": rules}
    return (Patch(CLUSTERROLES, "", name, patch),)
