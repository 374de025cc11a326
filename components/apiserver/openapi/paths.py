"""The REST paths of the kinds as OpenAPI operations.

kubectl learns from them which kinds accept dryRun and fieldValidation, and which kind a path
serves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kubewire.components.apiserver.kinds.spec import KindSpec
from kubewire.components.apiserver.openapi.custom import CustomVersion
from kubewire.components.apiserver.openapi.models import META, of_kind

STATUS = META + "Status"
DELETE_OPTIONS = META + "DeleteOptions"

# Query parameters of the verbs: name and JSON type.
_WRITE = (("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string"))
_PATCH = (*_WRITE, ("force", "boolean"))
_DELETE = (
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
)
_LIST = (
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
)
_STRATEGIC = "application/strategic-merge-patch+json"
_PATCH_TYPES = (
    "application/json-patch+json",
    "application/merge-patch+json",
    _STRATEGIC,
    "application/apply-patch+yaml",
)


@dataclass(frozen=True)
class Resource:
    """What the paths need to know of a kind; a definition name is "" where it has none."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool
    subresources: tuple[str, ...]
    definition: str
    list_definition: str
    custom: bool = False

    @property
    def patch_types(self) -> tuple[str, ...]:
        """The content types of patches.

        Custom resources have no strategic merge patch, and kubectl checks this before it sends
        one.
        """
        return tuple(kind for kind in _PATCH_TYPES if not self.custom or kind != _STRATEGIC)

    @property
    def group_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def root(self) -> str:
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"


@dataclass(frozen=True)
class Operation:
    """A verb on a path; body and response are definition names."""

    method: str
    action: str
    resource: Resource
    query: tuple[tuple[str, str], ...]
    body: str
    response: str

    @property
    def kind(self) -> dict[str, str]:
        """x-kubernetes-group-version-kind."""
        return {
            "group": self.resource.group,
            "kind": self.resource.kind,
            "version": self.resource.version,
        }


@dataclass(frozen=True)
class Path:
    template: str
    parameters: tuple[str, ...]
    operations: tuple[Operation, ...]


def builtin_resources(kinds: Sequence[KindSpec]) -> Iterator[Resource]:
    for spec in kinds:
        resource = spec.resource
        model = of_kind(resource.group, resource.version, resource.kind)
        listing = of_kind(resource.group, resource.version, f"{resource.kind}List")
        yield Resource(
            resource.group,
            resource.version,
            resource.kind,
            resource.plural,
            resource.namespaced,
            spec.subresources,
            model.name if model else "",
            listing.name if listing else "",
        )


def custom_resource(custom: CustomVersion) -> Resource:
    return Resource(
        custom.group,
        custom.version,
        custom.kind,
        custom.plural,
        custom.namespaced,
        custom.subresources,
        custom.name,
        custom.list_name,
        True,
    )


def resource_paths(resource: Resource) -> Iterator[Path]:
    scope = "/namespaces/{namespace}" if resource.namespaced else ""
    outer = ("namespace",) if resource.namespaced else ()
    collection = f"{resource.root}{scope}/{resource.plural}"
    if resource.namespaced:
        yield Path(f"{resource.root}/{resource.plural}", (), (_list(resource),))
    yield Path(
        collection,
        outer,
        (_list(resource), _create(resource), _delete_collection(resource)),
    )
    item = f"{collection}/{{name}}"
    yield Path(item, ("name", *outer), (*_item(resource), _delete(resource)))
    for subresource in resource.subresources:
        yield Path(f"{item}/{subresource}", ("name", *outer), _item(resource, subresource))


def _list(resource: Resource) -> Operation:
    return Operation("get", "list", resource, _LIST, "", resource.list_definition)


def _create(resource: Resource) -> Operation:
    return Operation("post", "post", resource, _WRITE, resource.definition, resource.definition)


def _delete(resource: Resource) -> Operation:
    return Operation("delete", "delete", resource, _DELETE, DELETE_OPTIONS, STATUS)


def _delete_collection(resource: Resource) -> Operation:
    query = tuple(sorted({*_LIST, *_DELETE}))
    return Operation("delete", "deletecollection", resource, query, DELETE_OPTIONS, STATUS)


def _item(resource: Resource, subresource: str = "") -> tuple[Operation, ...]:
    definition = resource.definition
    if subresource == "scale":
        scale = of_kind("autoscaling", "v1", "Scale")
        definition = scale.name if scale else ""
        custom = resource.custom
        plural = resource.plural
        namespaced = resource.namespaced
        resource = Resource(
            "autoscaling",
            "v1",
            "Scale",
            plural,
            namespaced,
            (),
            definition,
            "",
            custom,
        )
    return (
        Operation("get", "get", resource, (), "", definition),
        Operation("put", "put", resource, _WRITE, definition, definition),
        Operation("patch", "patch", resource, _PATCH, "", definition),
    )


def operation_id(operation: Operation, path: Path) -> str:
    """A name that is unique in the document, made from the verb and the path."""
    words = [word.strip("{}") for word in path.template.split("/") if word]
    return operation.action + "".join(word[:1].upper() + word[1:] for word in words)


def query_schema(kind: str) -> dict[str, Any]:
    return {"type": kind, "uniqueItems": True}
