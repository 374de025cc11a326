"""The schemas of custom resources in the OpenAPI documents (controller/openapi/builder of
apiextensions-apiserver).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kubewire.components.apiserver.openapi.models import LIST_META, OBJECT_META
from kubewire.components.apiserver.openapi.schemas import V2_PREFIX, JSONSchema
from kubewire.components.kubeapi.resources import KubeObject

#: Fields that OpenAPI v2 does not have; kubectl 1.20 refuses a document with them.
_NOT_IN_V2 = frozenset(
    {"oneOf", "anyOf", "not", "nullable", "allOf", "default", "x-kubernetes-validations"},
)


@dataclass(frozen=True)
class CustomVersion:
    """A served version of a CustomResourceDefinition."""

    group: str
    version: str
    kind: str
    list_kind: str
    plural: str
    namespaced: bool
    schema: JSONSchema
    subresources: tuple[str, ...]
    #: Whether objects may have any field at all.
    preserves: bool = False

    @property
    def name(self) -> str:
        """The name of the definition, with the group reversed: com.example.v1.Widget."""
        return f"{'.'.join(reversed(self.group.split('.')))}.{self.version}.{self.kind}"

    @property
    def list_name(self) -> str:
        return self.name.removesuffix(self.kind) + self.list_kind


def custom_versions(crds: Sequence[KubeObject]) -> Iterator[CustomVersion]:
    for crd in crds:
        spec = crd.get("spec") or {}
        names = spec.get("names") or {}
        for version in spec.get("versions") or ():
            if not version.get("served"):
                continue
            kind = names.get("kind", "")
            schema = (version.get("schema") or {}).get("openAPIV3Schema") or {}
            yield CustomVersion(
                group=spec.get("group", ""),
                version=version.get("name", ""),
                kind=kind,
                list_kind=names.get("listKind") or f"{kind}List",
                plural=names.get("plural", ""),
                namespaced=spec.get("scope") == "Namespaced",
                schema=schema,
                subresources=tuple(sorted(version.get("subresources") or {})),
                preserves=bool(
                    spec.get("preserveUnknownFields")
                    or schema.get("x-kubernetes-preserve-unknown-fields")
                ),
            )


def custom_schemas(custom: CustomVersion, prefix: str) -> dict[str, JSONSchema]:
    """The definitions of the kind and of its list."""
    schema = dict(custom.schema)
    if prefix == V2_PREFIX and (custom.preserves or not schema):
        # With any property kubectl would complain about all that are not there.
        schema = {"type": "object"}
    else:
        if prefix == V2_PREFIX:
            schema = _for_v2(schema)
        properties = dict(schema.get("properties") or {})
        properties["apiVersion"] = {"type": "string"}
        properties["kind"] = {"type": "string"}
        properties["metadata"] = _reference(OBJECT_META, prefix)
        schema["properties"] = properties
        schema.setdefault("type", "object")
    schema["x-kubernetes-group-version-kind"] = [_kind(custom, custom.kind)]
    items = {"type": "array", "items": {"$ref": prefix + custom.name}}
    listing: JSONSchema = {
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string"},
            "items": items,
            "kind": {"type": "string"},
            "metadata": _reference(LIST_META, prefix),
        },
        "x-kubernetes-group-version-kind": [_kind(custom, custom.list_kind)],
    }
    return {custom.name: schema, custom.list_name: listing}


def _reference(name: str, prefix: str) -> JSONSchema:
    return {"$ref": prefix + name}


def _kind(custom: CustomVersion, kind: str) -> dict[str, str]:
    return {"group": custom.group, "kind": kind, "version": custom.version}


def _for_v2(schema: Any) -> Any:
    """Removes what v2 does not have, or what kubectl reads wrongly (openapi/v2 of upstream's
    controller): a value of several possible types, or with unknown fields, becomes untyped.
    """
    if isinstance(schema, list):
        return [_for_v2(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {key: value for key, value in schema.items() if key not in _NOT_IN_V2}
    preserves = schema.get("x-kubernetes-preserve-unknown-fields")
    if schema.get("nullable") or preserves:
        plain.pop("properties", None)
        plain.pop("items", None)
    kind = plain.get("type")
    is_untyped = schema.get("x-kubernetes-int-or-string") or schema.get("nullable")
    if is_untyped or (preserves and kind == "object") or (kind == "array" and "items" not in plain):
        plain.pop("type", None)
    properties = plain.get("properties") or {}
    if "required" in plain:
        # An absent value of a nullable field is null for kubectl.
        plain["required"] = [
            name for name in plain["required"] if not (properties.get(name) or {}).get("nullable")
        ]
    result = {}
    for key, value in plain.items():
        if key == "properties":
            result[key] = {name: _for_v2(inner) for name, inner in value.items()}
        elif key in ("items", "additionalProperties"):
            result[key] = _for_v2(value)
        elif key != "required" or value:
            result[key] = value
    return result
