"""OpenAPI v2 (Swagger): one document for all kinds, as kube-apiserver serves it under /openapi/v2.

kubectl before 1.27 computes patches and validates manifests with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kubewire.components.apiserver.kinds.spec import KindSpec
from kubewire.components.apiserver.openapi.custom import custom_schemas, custom_versions
from kubewire.components.apiserver.openapi.document_v3 import INFO
from kubewire.components.apiserver.openapi.models import LIST_META, OBJECT_META, all_models
from kubewire.components.apiserver.openapi.paths import (
    Operation,
    Path,
    builtin_resources,
    custom_resource,
    operation_id,
    resource_paths,
)
from kubewire.components.apiserver.openapi.schemas import (
    V2_PREFIX,
    closure,
    common_schemas,
    schema_of,
)
from kubewire.components.kubeapi.resources import KubeObject

_PATCH_BODY = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch"


def document(kinds: Sequence[KindSpec], crds: Sequence[KubeObject]) -> dict[str, Any]:
    customs = list(custom_versions(crds))
    models = closure([*all_models(), OBJECT_META, LIST_META])
    definitions = {model.name: schema_of(model, V2_PREFIX) for model in models}
    definitions |= common_schemas(V2_PREFIX)
    definitions[_PATCH_BODY] = {"type": "object"}
    for item in customs:
        definitions |= custom_schemas(item, V2_PREFIX)
    resources = [*builtin_resources(kinds), *(custom_resource(item) for item in customs)]
    paths = [path for resource in resources for path in resource_paths(resource)]
    return {
        "swagger": "2.0",
        "info": INFO,
        "paths": {path.template: _path_item(path) for path in paths},
        "definitions": dict(sorted(definitions.items())),
    }


def _path_item(path: Path) -> dict[str, Any]:
    item: dict[str, Any] = {}
    for operation in path.operations:
        item[operation.method] = _operation(operation, path)
    item["parameters"] = [
        {"name": name, "in": "path", "required": True, "type": "string", "uniqueItems": True}
        for name in path.parameters
    ] + [{"name": "pretty", "in": "query", "type": "string", "uniqueItems": True}]
    return item


def _operation(operation: Operation, path: Path) -> dict[str, Any]:
    body = _PATCH_BODY if operation.method == "patch" else operation.body
    parameters: list[dict[str, Any]] = []
    if body:
        schema = {"$ref": V2_PREFIX + body}
        parameters.append(
            {
                "name": "body",
                "in": "body",
                "required": operation.method != "delete",
                "schema": schema,
            }
        )
    parameters += [
        {
            "name": name,
            "in": "query",
            "type": kind,
            "uniqueItems": True,
        }
        for name, kind in operation.query
    ]
    consumed = ["*/*"]
    if operation.method == "patch":
        consumed = list(operation.resource.patch_types)
    answer: dict[str, Any] = {"description": "OK"}
    if operation.response:
        answer["schema"] = {"$ref": V2_PREFIX + operation.response}
    return {
        "operationId": operation_id(operation, path),
        "consumes": consumed,
        "produces": ["application/json"],
        "schemes": ["https"],
        "parameters": parameters,
        "responses": {"200": answer, "401": {"description": "Unauthorized"}},
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": operation.kind,
    }
