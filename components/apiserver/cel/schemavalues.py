"""Turns decoded JSON into the values that a schema says it has (schema/cel/values.go)."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from kubewire.components.apiserver.cel.schematypes import Schema, escape

Converter = Callable[[Any], Any]

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h)")
_DURATION = re.compile(rf"[+-]?(?:{_PART.pattern})+")


def converter(schema: Schema) -> Converter | None:
    """The conversion of a schema's values, or None when they stay as they are."""
    if schema.get("x-kubernetes-int-or-string"):
        return None
    match schema.get("type"):
        case "string":
            return _STRINGS.get(schema.get("format", ""))
        case "number":
            return lambda value: float(value) if isinstance(value, int) else value
        case "array":
            return _array(schema)
        case "object":
            return _object(schema)
    return None


def _array(schema: Schema) -> Converter | None:
    inner = converter(schema.get("items") or {})
    if inner is None:
        return None
    return lambda value: [inner(item) for item in value] if isinstance(value, list) else value


def _object(schema: Schema) -> Converter | None:
    additional = schema.get("additionalProperties")
    if isinstance(additional, Mapping):
        inner = converter(additional)
        return None if inner is None else lambda value: _mapped(value, inner)
    fields: dict[str, tuple[str, Converter | None]] = {}
    for key, property_schema in (schema.get("properties") or {}).items():
        name, convert = escape(key) or key, converter(property_schema)
        if name != key or convert is not None:
            fields[key] = (name, convert)
    return (lambda value: _renamed(value, fields)) if fields else None


def _mapped(value: Any, inner: Converter) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: inner(item) for key, item in value.items()}


def _renamed(value: Any, fields: Mapping[str, tuple[str, Converter | None]]) -> Any:
    if not isinstance(value, dict):
        return value
    result = {}
    for key, item in value.items():
        name, convert = fields.get(key, (key, None))
        result[name] = item if convert is None or item is None else convert(item)
    return result


def _time(value: Any) -> Any:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return value
    from google.protobuf.timestamp_pb2 import Timestamp

    # Inside maps and lists the engine takes messages, and not datetime and timedelta.
    result = Timestamp()
    result.FromDatetime(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    return result


def _duration(value: Any) -> Any:
    if not isinstance(value, str) or not _DURATION.fullmatch(value):
        return value
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(value))
    from google.protobuf.duration_pb2 import Duration

    result = Duration()
    result.FromTimedelta(timedelta(seconds=-seconds if value.startswith("-") else seconds))
    return result


def _bytes(value: Any) -> Any:
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError):
        return value


_STRINGS: dict[str, Converter] = {
    "date-time": _time,
    "date": _time,
    "duration": _duration,
    "byte": _bytes,
}
