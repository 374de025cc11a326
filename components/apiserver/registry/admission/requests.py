"""What webhooks and policies are shown of a request: its objects at the version that they know.

The chain works on objects as they are stored. Webhooks and policies see them as the client wrote
them, at the request's version or at an equivalent one, and without what the registry fills in only
after admission.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kubewire.components.apiserver.cel.authorization import Asker, Decide
from kubewire.components.apiserver.registry.admission.plugin import Attributes
from kubewire.components.apiserver.registry.admission.webhooks.rules import Resource
from kubewire.components.apiserver.registry.catalog import Catalog, Served
from kubewire.components.apiserver.store import Key, Store
from kubewire.components.kubeapi.resources import KubeObject
from kubewire.components.kubeapi.selectors import LabelSelector

#: What the registry sets when it creates an object, after mutating admission.
_SET_ON_CREATE = ("uid", "creationTimestamp", "generation")


@dataclass(frozen=True)
class Kind:
    """The type of the object that a request carries."""

    group: str
    version: str
    kind: str

    def as_json(self) -> dict[str, str]:
        return {"group": self.group, "version": self.version, "kind": self.kind}


def resource_of(attributes: Attributes) -> Resource:
    served = attributes.served
    return Resource(served.group, served.version, served.plural, attributes.subresource)


def namespace_of(attributes: Attributes) -> str:
    """The request's namespace; for a Namespace it is its own name."""
    return attributes.name if attributes.served.storage == "namespaces" else attributes.namespace


def equivalents(catalog: Catalog, resource: Resource) -> list[Resource]:
    """The resources that lead to the same objects, such as other versions of a custom resource."""
    served = catalog.find(resource.group, resource.version, resource.plural)
    if served is None:
        return []
    return [
        Resource(other.group, other.version, other.plural, resource.subresource)
        for other in catalog.all()
        if other.storage == served.storage
    ]


def served_as(catalog: Catalog, attributes: Attributes, resource: Resource) -> Served:
    """The resource's kind and conversions."""
    found = catalog.find(resource.group, resource.version, resource.plural)
    return found if found is not None else attributes.served


def kind_of(attributes: Attributes, served: Served) -> Kind:
    """The kind of the request's object, which for some subresources is not the resource's."""
    if attributes.body_kind is not None:
        return Kind(*attributes.body_kind)
    return Kind(served.group, served.version, served.kind)


def shown(attributes: Attributes, served: Served, obj: KubeObject) -> KubeObject | None:
    """The new or the old object at a version, or None when the request has none."""
    if not obj:
        return None
    if attributes.body_kind is not None:
        return obj
    result = served.from_storage(obj)
    if attributes.operation != "CREATE" or obj is not attributes.obj:
        return result
    hidden = set(_SET_ON_CREATE)
    if attributes.generated_name:
        hidden.add("name")
    metadata = {key: value for key, value in result["metadata"].items() if key not in hidden}
    return {**result, "metadata": {**metadata, "creationTimestamp": None}}


def request_json(
    attributes: Attributes, resource: Resource, served: Served, uid: str
) -> dict[str, Any]:
    """admission.k8s.io's AdmissionRequest without the objects."""
    own = attributes.served
    asked = resource_of(attributes)
    request: dict[str, Any] = {"uid": uid, "kind": kind_of(attributes, served).as_json()}
    request["resource"] = _resource_json(resource)
    if resource.subresource:
        request["subResource"] = resource.subresource
    request["requestKind"] = kind_of(attributes, own).as_json()
    request["requestResource"] = _resource_json(asked)
    if asked.subresource:
        request["requestSubResource"] = asked.subresource
    if attributes.name and not attributes.generated_name:
        request["name"] = attributes.name
    if namespace := namespace_of(attributes):
        request["namespace"] = namespace
    request["operation"] = attributes.operation
    request["userInfo"] = attributes.user.info()
    request["dryRun"] = attributes.dry_run
    request["options"] = attributes.options or None
    return request


def expression_values(
    attributes: Attributes, resource: Resource, served: Served, decide: Decide
) -> dict[str, Any]:
    """The variables that an expression sees of a request; decide answers its authorizer."""
    request = request_json(attributes, resource, served, "")
    del request["uid"]
    return {
        "object": shown(attributes, served, attributes.obj),
        "oldObject": shown(attributes, served, attributes.old),
        "request": request,
        "namespaceObject": None,
        "params": None,
        "authorizer": Asker(decide, attributes.user, _asked(attributes)),
    }


def _asked(attributes: Attributes) -> dict[str, str]:
    """The request's own resource, about which authorizer.requestResource asks."""
    return {
        "group": attributes.served.group,
        "resource": attributes.served.plural,
        "subresource": attributes.subresource,
        "namespace": namespace_of(attributes),
        "name": "" if attributes.generated_name else attributes.name,
    }


def _resource_json(resource: Resource) -> dict[str, str]:
    return {
        "group": resource.group,
        "version": resource.version,
        "resource": resource.plural,
    }


def namespace_labels(store: Store, attributes: Attributes) -> Mapping[str, str] | None:
    """The labels that a namespaceSelector compares; None when the namespace does not exist."""
    served = attributes.served
    writes = attributes.operation in ("CREATE", "UPDATE") and not attributes.subresource
    if served.storage == "namespaces" and writes:
        return attributes.obj["metadata"].get("labels") or {}
    found = store.get(Key("namespaces", "", namespace_of(attributes)))
    return None if found is None else found.obj["metadata"].get("labels") or {}


def in_namespaces(selector: LabelSelector, store: Store, attributes: Attributes) -> bool | None:
    """Whether a namespaceSelector lets the request through; None when there is no namespace.

    It never exempts cluster-scoped objects other than Namespaces.
    """
    if not namespace_of(attributes) or not (selector.requirements or selector.nothing):
        return True
    labels = namespace_labels(store, attributes)
    return None if labels is None else selector.matches(labels)
