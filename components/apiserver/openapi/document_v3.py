"""OpenAPI v3: one document per group version, as kube-apiserver serves it under /openapi/v3
(https://kubernetes.io/docs/concepts/overview/kubernetes-api/#openapi-v3).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from kubewire.components.apiserver.kinds.spec import KindSpec
from kubewire.components.apiserver.openapi.custom import custom_schemas, custom_versions
from kubewire.components.apiserver.openapi.models import LIST_META, OBJECT_META, RELEASE
from kubewire.components.apiserver.openapi.paths import (
    DELETE_OPTIONS,
    STATUS,
    Operation,
    Path,
    Resource,
    builtin_resources,
    custom_resource,
    operation_id,
    query_schema,
    resource_paths,
)
from kubewire.components.apiserver.openapi.schemas import (
    V3_PREFIX,
    closure,
    common_schemas,
    schema_of,
)
from kubewire.components.kubeapi.resources import KubeObject

INFO = {"title": "Kubernetes", "version": f"v{RELEASE}+kubewire"}
_PATCH_BODY = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch"


def group_versions(kinds: Sequence[KindSpec], crds: Sequence[KubeObject]) -> list[str]:
    """The group versions, such as `v1` and `apps/v1`, each once."""
    versions = [spec.resource.api_version for spec in kinds]
    versions += [f"{custom.group}/{custom.version}" for custom in custom_versions(crds)]
    return list(dict.fromkeys(versions))


def index(kinds: Sequence[KindSpec], crds: Sequence[KubeObject]) -> dict[str, Any]:
    """The index of the documents; each URL has a hash so that clients can cache it.

    {"paths": {"api/v1": {"serverRelativeURL": "/openapi/v3/api/v1?hash=..."}}}
    """
    digest = _digest(kinds, crds)
    paths = {}
    for group_version in group_versions(kinds, crds):
        path = f"apis/{group_version}" if "/" in group_version else f"api/{group_version}"
        paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={digest}"}
    return {"paths": paths}


def _digest(kinds: Sequence[KindSpec], crds: Sequence[KubeObject]) -> str:
    """A hash that changes with the served kinds and the definitions of custom ones."""
    served = [(spec.resource.api_version, spec.resource.kind, spec.subresources) for spec in kinds]
    content = orjson.dumps([served, [crd.get("spec") for crd in crds], INFO])
    return hashlib.sha256(content).hexdigest().upper()


def document(
    group_version: str,
    kinds: Sequence[KindSpec],
    crds: Sequence[KubeObject],
) -> dict[str, Any]:
    """The document of a group version, such as `v1` or `apps/v1`."""
    resources = [item for item in builtin_resources(kinds) if item.group_version == group_version]
    defined = custom_versions(crds)
    customs = [item for item in defined if f"{item.group}/{item.version}" == group_version]
    schemas = _schemas(
        [*(item.definition for item in resources), *(item.list_definition for item in resources)],
    )
    for item in customs:
        schemas |= custom_schemas(item, V3_PREFIX)
    resources += [custom_resource(item) for item in customs]
    return {
        "openapi": "3.0.0",
        "info": INFO,
        "paths": _paths(resources),
        "components": {"schemas": dict(sorted(schemas.items()))},
    }


def _schemas(names: Iterable[str]) -> dict[str, Any]:
    scale = "io.k8s.api.autoscaling.v1.Scale"
    models = closure([*names, scale, STATUS, DELETE_OPTIONS, OBJECT_META, LIST_META])
    schemas = {model.name: schema_of(model, V3_PREFIX) for model in models}
    return schemas | common_schemas(V3_PREFIX) | {_PATCH_BODY: {"type": "object"}}


def _paths(resources: Sequence[Resource]) -> dict[str, Any]:
    paths = (path for resource in resources for path in resource_paths(resource))
    return {path.template: _path_item(path) for path in paths}


def _path_item(path: Path) -> dict[str, Any]:
    item: dict[str, Any] = {}
    for operation in path.operations:
        item[operation.method] = _operation(operation, path)
    item["parameters"] = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": query_schema("string"),
        }
        for name in path.parameters
    ] + [{"name": "pretty", "in": "query", "schema": query_schema("string")}]
    return item


def _operation(operation: Operation, path: Path) -> dict[str, Any]:
    result: dict[str, Any] = {"operationId": operation_id(operation, path)}
    if operation.query:
        result["parameters"] = [
            {
                "name": name,
                "in": "query",
                "schema": query_schema(kind),
            }
            for name, kind in operation.query
        ]
    if operation.method == "patch":
        result["requestBody"] = {
            "content": {kind: _schema(_PATCH_BODY) for kind in operation.resource.patch_types},
            "required": True,
        }
    elif operation.body:
        result["requestBody"] = {"content": {"*/*": _schema(operation.body)}}
    result["responses"] = {
        "200": {"description": "OK", "content": {"application/json": _schema(operation.response)}},
        "401": {"description": "Unauthorized"},
    }
    result["x-kubernetes-action"] = operation.action
    result["x-kubernetes-group-version-kind"] = operation.kind
    return result


def _schema(name: str) -> dict[str, Any]:
    return {"schema": {"$ref": V3_PREFIX + name}} if name else {}
