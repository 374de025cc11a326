"""Built-in types as structural schemas, which have types, properties and items alone."""

from __future__ import annotations

from typing import Any

from kubewire.components.apiserver.openapi import models

_SCALARS: dict[str, dict[str, Any]] = {
    "s": {"type": "string"},
    "i": {"type": "integer"},
    "l": {"type": "integer"},
    "n": {"type": "number"},
    "b": {"type": "boolean"},
    "t": {"type": "string", "format": "date-time"},
    "u": {"type": "string", "format": "date-time"},
    "y": {"type": "string", "format": "byte"},
    "q": {"x-kubernetes-int-or-string": True},
    "x": {"x-kubernetes-int-or-string": True},
    "o": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
}


def of_kind(group: str, version: str, kind: str) -> dict[str, Any] | None:
    """The schema of a kind, or None for custom resources. A type that contains itself appears as
    one object.
    """
    model = models.of_kind(group, version, kind)
    return None if model is None else _definition(model.name, {})


def _definition(name: str, made: dict[str, dict[str, Any]]) -> dict[str, Any]:
    known = made.get(name)
    if known is not None:
        return known
    schema: dict[str, Any] = {"type": "object", "properties": {}}
    made[name] = schema
    for field, kind in models.all_models()[name].fields.items():
        schema["properties"][field] = _schema(kind, made)
    return schema


def _schema(kind: str, made: dict[str, dict[str, Any]]) -> dict[str, Any]:
    if kind.startswith("["):
        return {"type": "array", "items": _schema(kind[1:], made)}
    if kind.startswith("{"):
        return {"type": "object", "additionalProperties": _schema(kind[1:], made)}
    if kind.startswith("#"):
        return _definition(kind[1:], made)
    return _SCALARS.get(kind, _SCALARS["o"])
