"""What gnostic's messages of both OpenAPI versions are made of (github.com/google/gnostic-models)."""

from __future__ import annotations

from typing import Any

import orjson

from kubewire.components.apiserver.openapi.protobuf import message, text

JSON = dict[str, Any]


def named(field: int, name: str, value: bytes) -> bytes:
    """NamedSchema, NamedPathItem, ...: name = 1, value = 2."""
    return message(field, text(1, name) + message(2, value))


def any_value(value: Any) -> bytes:
    """Any, in its YAML form; JSON is YAML."""
    return text(2, orjson.dumps(value).decode())


def extensions(field: int, value: JSON) -> bytes:
    """The vendor extensions (x-...) of an object, a NamedAny each."""
    return b"".join(named(field, key, any_value(one)) for key, one in value.items() if key.startswith("x-"))
