"""Which requests a webhook or a policy sees: its rules and its two selectors
(admission/plugin/webhook/predicates).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kubewire.components.kubeapi.resources import KubeObject
from kubewire.components.kubeapi.selectors import LabelSelector

GROUP = "admissionregistration.k8s.io"
#: Requests for these kinds are never shown to webhooks and policies, so that a broken one can be
#: repaired.
_EXEMPT = frozenset(
    {
        "mutatingwebhookconfigurations",
        "validatingwebhookconfigurations",
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
        "mutatingadmissionpolicies",
        "mutatingadmissionpolicybindings",
    }
)


@dataclass(frozen=True)
class Resource:
    """The resource of a request, or one that stores the same objects."""

    group: str
    version: str
    plural: str
    subresource: str = ""

    @property
    def exempt(self) -> bool:
        return self.group == GROUP and self.plural in _EXEMPT


def matches(
    rule: Mapping[str, Any],
    resource: Resource,
    operation: str,
    namespace: str,
    name: str = "",
) -> bool:
    """Whether a RuleWithOperations, or NamedRuleWithOperations, is about the request.

    namespace is "" for cluster-scoped objects. For a Namespace it is the namespace's own name.
    """
    names = rule.get("resourceNames")
    return (
        _in_scope(rule.get("scope") or "*", resource, namespace)
        and _listed(rule.get("operations"), operation)
        and _listed(rule.get("apiGroups"), resource.group)
        and _listed(rule.get("apiVersions"), resource.version)
        and any(_is_resource(item, resource) for item in rule.get("resources") or ())
        and (not names or name in names)
    )


def first_match(
    rules: Iterable[Mapping[str, Any]],
    resource: Resource,
    equivalents: Iterable[Resource],
    match_policy: str,
    operation: str,
    namespace: str,
    name: str = "",
) -> Resource | None:
    """The resource as which the request is shown, or None when no rule is about it.

    With the match policy Equivalent a rule may name another group or version of the same objects.
    """
    rules = list(rules)
    if any(matches(rule, resource, operation, namespace, name) for rule in rules):
        return resource
    if match_policy == "Exact":
        return None
    others = [other for other in equivalents if other != resource]
    return next(
        (
            other
            for rule in rules
            for other in others
            if matches(rule, other, operation, namespace, name)
        ),
        None,
    )


def _listed(items: Iterable[str] | None, wanted: str) -> bool:
    return any(item in ("*", wanted) for item in items or ())


def _in_scope(scope: str, resource: Resource, namespace: str) -> bool:
    if scope == "*":
        return True
    is_namespace = (resource.group, resource.plural) == ("", "namespaces")
    namespaced = bool(namespace) and not is_namespace
    return {"Namespaced": namespaced, "Cluster": not namespaced}.get(scope, False)


def _is_resource(item: str, resource: Resource) -> bool:
    plural, _, subresource = item.partition("/")
    return plural in ("*", resource.plural) and subresource in ("*", resource.subresource)


def object_selected(
    selector: LabelSelector, new: KubeObject | None, old: KubeObject | None
) -> bool:
    """Whether the new or the old object has the labels; an object without metadata has none."""
    if not selector.requirements:
        return True
    return any(obj and selector.matches(_labels(obj)) for obj in (new, old))


def _labels(obj: KubeObject) -> dict[str, str]:
    return (obj.get("metadata") or {}).get("labels") or {}
