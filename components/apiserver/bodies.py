"""Limits the bytes, nesting and values of a body before it is decoded.

The limit of bytes is upstream's (MaxRequestBodyBytes of apiserver/pkg/server). Go decodes 10,000
levels and millions of values. Here both are limited more strictly, because each value costs more
in Python and orjson writes at most 254 levels.
"""

from __future__ import annotations

from typing import Any

import orjson

from kubewire.components.kubeapi.client import JSON_PATCH

MAX_BYTES = 3 * 1024 * 1024
MAX_DEPTH = 200
#: The most objects, lists and scalars in one object. The largest ones in practice, CRDs with long
#: schemas, have about 50,000.
MAX_VALUES = 100_000

TOO_DEEP = "exceeded max depth"
_CHUNK = 64 * 1024

#: Bodies up to these sizes are processed in the event loop, larger ones in a worker thread. JSON
#: is measured in values and bytes, other formats in bytes.
_LIGHT_VALUES = 1000
_LIGHT_JSON = 128 * 1024
_LIGHT_OTHER = 4 * 1024


class TooLarge(Exception):
    """The body has more bytes or values than an object may have; the message is that of the 413."""


class TooDeep(ValueError):
    """The body is nested deeper than MAX_DEPTH."""


def bytes_limit() -> TooLarge:
    return TooLarge(f"Request entity too large: limit is {MAX_BYTES}")


def values_limit() -> TooLarge:
    return TooLarge(f"Request entity too large: limit is {MAX_VALUES} values")


def is_light(body: bytes, media_type: str) -> bool:
    """Whether reading and checking the body takes at most a few milliseconds."""
    if not media_type.endswith("json"):
        # A YAML alias may stand for many values.
        return len(body) <= _LIGHT_OTHER and b"*" not in body
    if media_type == JSON_PATCH and b'"copy"' in body:
        return False
    return len(body) <= _LIGHT_JSON and _most_values(body) <= _LIGHT_VALUES


def load_json(body: bytes) -> Any:
    """Decodes JSON within the limits; raises orjson.JSONDecodeError, TooDeep and TooLarge."""
    if has_too_many_values(body):
        raise values_limit()
    try:
        decoded = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if "depth limit" in error.msg:
            raise TooDeep(TOO_DEEP) from error
        raise
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH:
        check_depth(decoded)
    return decoded


def has_too_many_values(body: bytes) -> bool:
    """Whether JSON has more than MAX_VALUES values."""
    # Each value takes at least two bytes, so most bodies need no counting.
    if len(body) <= 2 * MAX_VALUES or _most_values(body) <= MAX_VALUES:
        return False
    return count_values(body) > MAX_VALUES


def _most_values(body: bytes) -> int:
    """An upper bound of the number of values in JSON; it also counts punctuation in strings."""
    return body.count(b",") + body.count(b"[") + body.count(b"{") + 1


def count_values(body: bytes) -> int:
    """Counts the values of JSON without decoding it; an empty list counts as two."""
    text = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    total = 1
    inside = False
    for start in range(0, len(text), _CHUNK):
        parts = text[start : start + _CHUNK].split(b'"')
        outside = b"".join(parts[inside::2])
        total += outside.count(b",") + outside.count(b"[") + outside.count(b"{")
        inside ^= len(parts) % 2 == 0
    return total


def check_depth(value: Any, most: int = MAX_DEPTH) -> None:
    """Raises TooDeep when lists and objects are nested more than `most` levels deep."""
    level = [value] if isinstance(value, dict | list) else []
    depth = 0
    while level:
        depth += 1
        if depth > most:
            raise TooDeep(TOO_DEEP)
        level = [
            inner
            for container in level
            for inner in (container.values() if isinstance(container, dict) else container)
            if isinstance(inner, dict | list)
        ]
