"""The elements that gnostic's messages of both OpenAPI versions share
(github.com/google/gnostic-models).
"""

from __future__ import annotations

from typing import Any

import orjson

from kubewire.components.apiserver.openapi.protobuf import message, text

JSON = dict[str, Any]


def named(field: int, name: str, value: bytes) -> bytes:
    """A NamedSchema, NamedPathItem and so on: name is field 1, value is field 2."""
    return message(field, text(1, name) + message(2, value))


def any_value(value: Any) -> bytes:
    """An Any in its YAML form; JSON is valid YAML."""
    return text(2, orjson.dumps(value).decode())


def extensions(field: int, value: JSON) -> bytes:
    """The vendor extensions (x-...) of an object, each as a NamedAny."""
    own = ((key, item) for key, item in value.items() if key.startswith("x-"))
    return b"".join(named(field, key, any_value(item)) for key, item in own)
