"""Which requests a policy concerns, and with which parameters
(admission/plugin/policy/matching and generic).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kubewire.components.apiserver.cel.authorization import Decide
from kubewire.components.apiserver.registry.admission import requests
from kubewire.components.apiserver.registry.admission.plugin import Attributes, Operation
from kubewire.components.apiserver.registry.admission.policies.definitions import Policy
from kubewire.components.apiserver.registry.admission.webhooks import rules
from kubewire.components.apiserver.registry.admission.webhooks.rules import Resource
from kubewire.components.apiserver.registry.catalog import Catalog, Served
from kubewire.components.apiserver.store import Key, Store
from kubewire.components.kubeapi.resources import KubeObject
from kubewire.components.kubeapi.selectors import LabelSelector


class Misconfigured(Exception):
    """A policy or a binding cannot be used for this request."""


@dataclass(frozen=True)
class Use:
    """A policy with a binding and one parameter, for one request."""

    policy: Policy
    binding: KubeObject
    param: KubeObject | None
    resource: Resource
    served: Served

    @property
    def key(self) -> tuple[str, str, str]:
        param = (self.param or {}).get("metadata") or {}
        place = f"{param.get('namespace', '')}/{param.get('name', '')}"
        return self.policy.name, self.binding["metadata"]["name"], place


class Matcher:
    def __init__(self, store: Store, catalog: Catalog) -> None:
        self._store = store
        self._catalog = catalog

    @property
    def serial(self) -> int:
        return self._catalog.serial

    def may_concern(
        self, policy: Policy, served: Served, operation: Operation, subresource: str
    ) -> bool:
        """Whether the policy's rules are about such requests, whatever their content."""
        resource = Resource(served.group, served.version, served.plural, subresource)
        namespace = "any" if served.namespaced else ""
        return any(
            rules.matches({**rule, "resourceNames": []}, other, operation, namespace)
            for rule in policy.constraints.get("resourceRules") or ()
            for other in requests.equivalents(self._catalog, resource)
        )

    def uses(self, policy: Policy, attributes: Attributes) -> Iterator[Use | tuple[str, str]]:
        """The uses for a request; for a wrong binding its name and the reason."""
        resource = self._match(policy.constraints, attributes)
        if resource is None:
            return
        served = requests.served_as(self._catalog, attributes, resource)
        for binding in policy.bindings:
            where = (binding.get("spec") or {}).get("matchResources")
            if where is not None and self._match(where, attributes) is None:
                continue
            try:
                params = self._params(policy, binding, attributes)
            except Misconfigured as error:
                yield binding["metadata"]["name"], f"failed to configure binding: {error}"
                continue
            for param in params:
                yield Use(policy, binding, param, resource, served)

    def _match(self, criteria: Mapping[str, Any], attributes: Attributes) -> Resource | None:
        """The resource as which MatchResources see the request, or None."""
        selector = LabelSelector.from_object(criteria.get("namespaceSelector") or {})
        if not requests.in_namespaces(selector, self._store, attributes):
            return None
        objects = LabelSelector.from_object(criteria.get("objectSelector") or {})
        if not rules.object_selected(objects, attributes.obj, attributes.old):
            return None
        if self._by_rules(criteria, "excludeResourceRules", attributes) is not None:
            return None
        if not criteria.get("resourceRules"):
            return requests.resource_of(attributes)
        return self._by_rules(criteria, "resourceRules", attributes)

    def _by_rules(
        self, criteria: Mapping[str, Any], key: str, attributes: Attributes
    ) -> Resource | None:
        asked = requests.resource_of(attributes)
        return rules.first_match(
            criteria.get(key) or (),
            asked,
            requests.equivalents(self._catalog, asked),
            criteria.get("matchPolicy") or "Equivalent",
            attributes.operation,
            requests.namespace_of(attributes),
            attributes.name,
        )

    def _params(
        self, policy: Policy, binding: KubeObject, attributes: Attributes
    ) -> list[KubeObject | None]:
        kind = policy.spec.get("paramKind")
        reference = binding["spec"].get("paramRef")
        if kind is None or reference is None:
            return [None]
        served = self._kind(kind)
        namespace = self._namespace(served, reference, attributes)
        found = [served.from_storage(obj) for obj in self._selected(served, namespace, reference)]
        if not found and reference.get("parameterNotFoundAction") == "Deny":
            raise Misconfigured(
                "no params found for policy binding with `Deny` parameterNotFoundAction"
            )
        return list(found)

    def _kind(self, kind: Mapping[str, str]) -> Served:
        for served in self._catalog.all():
            if (served.api_version, served.kind) == (kind["apiVersion"], kind["kind"]):
                return served
        text = f"&ParamKind{{APIVersion:{kind['apiVersion']},Kind:{kind['kind']},}}"
        raise Misconfigured(f"paramKind kind `{text}` not known")

    def _namespace(
        self, served: Served, reference: Mapping[str, Any], attributes: Attributes
    ) -> str:
        named = reference.get("namespace") or ""
        if not served.namespaced:
            if named:
                raise Misconfigured(
                    "paramRef.namespace must not be provided for a cluster-scoped `paramKind`"
                )
            return ""
        namespace = named or requests.namespace_of(attributes)
        if not namespace:
            text = "cannot use namespaced paramRef in policy binding that matches cluster-scoped"
            raise Misconfigured(f"{text} resources")
        return str(namespace)

    def _selected(
        self, served: Served, namespace: str, reference: Mapping[str, Any]
    ) -> list[KubeObject]:
        if name := reference.get("name"):
            stored = self._store.get(Key(served.storage, namespace, name))
            return [] if stored is None else [stored.obj]
        selector = LabelSelector.from_object(reference.get("selector") or {})
        return [
            stored.obj
            for stored in self._store.items(served.storage)
            if stored.key.namespace == namespace
            and selector.matches(stored.obj["metadata"].get("labels"))
        ]


def values(use: Use, attributes: Attributes, store: Store, decide: Decide) -> dict[str, Any]:
    """The variables that the expressions of a policy see, without `variables`."""
    seen = requests.expression_values(attributes, use.resource, use.served, decide)
    namespace = "" if attributes.served.storage == "namespaces" else attributes.namespace
    stored = store.get(Key("namespaces", "", namespace)) if namespace else None
    seen["namespaceObject"] = None if stored is None else stored.obj
    seen["params"] = use.param
    return seen
