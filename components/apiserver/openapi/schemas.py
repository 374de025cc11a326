"""JSON schemas of the definitions for OpenAPI v2 and v3.

The two versions differ in references (`#/definitions/`, `#/components/schemas/`) and in
int-or-string. v3 also has `default: {}` and allOf around references that have extensions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kubewire.components.apiserver.openapi.descriptions import describe
from kubewire.components.apiserver.openapi.models import (
    INT_OR_STRING,
    META,
    QUANTITY,
    Model,
    all_models,
    referenced,
)

JSONSchema = dict[str, Any]

V2_PREFIX = "#/definitions/"
V3_PREFIX = "#/components/schemas/"

_TIME = META + "Time"
_MICRO_TIME = META + "MicroTime"
_FIELDS = META + "FieldsV1"
_RAW = "io.k8s.apimachinery.pkg.runtime.RawExtension"

_SCALARS: dict[str, JSONSchema] = {
    "s": {"type": "string"},
    "b": {"type": "boolean"},
    "i": {"type": "integer", "format": "int32"},
    "l": {"type": "integer", "format": "int64"},
    "n": {"type": "number", "format": "double"},
    "y": {"type": "string", "format": "byte"},
}
_REFERENCES = {"t": _TIME, "u": _MICRO_TIME, "q": QUANTITY, "x": INT_OR_STRING, "o": _RAW}


def common_schemas(prefix: str) -> dict[str, JSONSchema]:
    """The definitions that are not structs."""
    if prefix == V2_PREFIX:
        int_or_string: JSONSchema = {"type": "string", "format": "int-or-string"}
        quantity: JSONSchema = {"type": "string"}
    else:
        int_or_string = {
            "format": "int-or-string",
            "oneOf": [{"type": "integer"}, {"type": "string"}],
        }
        quantity = {"oneOf": [{"type": "string"}, {"type": "number"}]}
    return {
        _TIME: {"type": "string", "format": "date-time"},
        _MICRO_TIME: {"type": "string", "format": "date-time"},
        _FIELDS: {"type": "object"},
        _RAW: {"type": "object"},
        QUANTITY: quantity,
        INT_OR_STRING: int_or_string,
    }


def schema_of(model: Model, prefix: str) -> JSONSchema:
    schema: JSONSchema = {"type": "object"}
    if text := describe(model):
        schema["description"] = text
    if model.required:
        schema["required"] = list(model.required)
    schema["properties"] = {key: _property(model, key, prefix) for key in model.fields}
    if model.kind is not None:
        group, version, kind = model.kind
        schema["x-kubernetes-group-version-kind"] = [
            {"group": group, "kind": kind, "version": version},
        ]
    return schema


def _property(model: Model, key: str, prefix: str) -> JSONSchema:
    schema = type_schema(model.fields[key], prefix)
    extensions = _extensions(model, key)
    if text := describe(model, key):
        extensions["description"] = text
    if extensions and "$ref" in schema and prefix == V3_PREFIX:
        schema = {"allOf": [schema], "default": {}}
    return schema | extensions


def _extensions(model: Model, key: str) -> JSONSchema:
    patch = model.patch.get(key)
    keys = model.list_keys.get(key) or ((patch.merge_key,) if patch and patch.merge_key else ())
    extensions: JSONSchema = {}
    if keys:
        extensions["x-kubernetes-list-map-keys"] = list(keys)
    if model.fields[key].startswith("[") and (patch or key in model.list_keys):
        extensions["x-kubernetes-list-type"] = "map" if keys else "set"
    if patch:
        if patch.merge_key:
            extensions["x-kubernetes-patch-merge-key"] = patch.merge_key
        extensions["x-kubernetes-patch-strategy"] = patch.strategy
    return extensions


def type_schema(kind: str, prefix: str) -> JSONSchema:
    match kind[0]:
        case "[":
            return {"type": "array", "items": type_schema(kind[1:], prefix)}
        case "{":
            return {"type": "object", "additionalProperties": type_schema(kind[1:], prefix)}
        case "#":
            return {"$ref": prefix + kind[1:]}
    if kind in _REFERENCES:
        return {"$ref": prefix + _REFERENCES[kind]}
    return dict(_SCALARS[kind])


def closure(names: Iterable[str]) -> list[Model]:
    """The named models and all models to which they refer, sorted by name."""
    models = all_models()
    waiting = list(names)
    reached = dict[str, Model]()
    while waiting:
        name = waiting.pop()
        if name in reached or name not in models:
            continue
        reached[name] = models[name]
        for kind in models[name].fields.values():
            inner = referenced(kind)
            if inner is not None:
                waiting.append(inner.name)
    return [reached[name] for name in sorted(reached)]
