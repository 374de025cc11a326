"""Validates the schema of a CustomResourceDefinition: its patterns, types and list keys
(validation.go and schema/validation.go of apiextensions).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kubewire.components.apiserver import patterns
from kubewire.components.apiserver.kinds.fielderrors import invalid, not_supported, required
from kubewire.components.apiserver.kinds.spec import FieldError

_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_LIST_TYPES = ("atomic", "map", "set")


def errors(schema: Mapping[str, Any], path: str) -> list[FieldError]:
    """Returns the errors of a schema; path is that of the schema in the definition."""
    problems: list[FieldError] = []
    waiting = [(path, schema)]
    while waiting:
        place, inner = waiting.pop()
        problems += _own(inner, place)
        waiting += reversed(list(_inner(inner, place)))
    return problems


def _own(schema: Mapping[str, Any], path: str) -> Iterator[FieldError]:
    if pattern := schema.get("pattern"):
        try:
            patterns.check(pattern)
        except patterns.PatternError as error:
            text = f"must be a valid regular expression, but isn't: {error}"
            yield invalid(f"{path}.pattern", pattern, text)
    if (kind := schema.get("type") or "") and kind not in _TYPES:
        yield not_supported(f"{path}.type", kind, _TYPES)
    kind = schema.get("x-kubernetes-list-type")
    if kind is not None and kind not in _LIST_TYPES:
        yield not_supported(f"{path}.x-kubernetes-list-type", kind, _LIST_TYPES)
    if kind == "map" and not schema.get("x-kubernetes-list-map-keys"):
        text = "must not be empty if x-kubernetes-list-type is map"
        yield required(f"{path}.x-kubernetes-list-map-keys", text)
    if schema.get("multipleOf") is not None and schema["multipleOf"] <= 0:
        yield invalid(f"{path}.multipleOf", schema["multipleOf"], "must be greater than 0")
    items = schema.get("items")
    if isinstance(items, list):
        yield FieldError(
            "Forbidden",
            f"{path}.items",
            "",
            "items must be a schema object and not an array",
        )


def _inner(schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for key in ("properties", "patternProperties", "definitions"):
        for name, inner in (schema.get(key) or {}).items():
            yield f"{path}.{key}[{name}]", inner
    for key in ("items", "additionalProperties", "not"):
        if isinstance(inner := schema.get(key), Mapping):
            yield f"{path}.{key}", inner
    for key in ("allOf", "anyOf", "oneOf"):
        for index, inner in enumerate(schema.get(key) or ()):
            yield f"{path}.{key}[{index}]", inner
