"""How much one body may be: bytes, nesting and values, looked at before anything is made of it.

The limit of bytes is upstream's (apiserver/pkg/server's MaxRequestBodyBytes). Go decodes 10,000 levels and millions of
values; here both have limits of their own, because each value costs more and orjson writes 254 levels."""

from __future__ import annotations

from typing import Any

import orjson

from kubewire.components.kubeapi.client import JSON_PATCH

MAX_BYTES = 3 * 1024 * 1024
MAX_DEPTH = 200
#: Objects, lists and scalars of one object. The largest of practice, CRDs with long schemas, have about 50,000.
MAX_VALUES = 100_000

TOO_DEEP = "exceeded max depth"
_CHUNK = 64 * 1024

#: Work that the event loop does itself; more is done in a worker thread. In values of JSON, bytes of the others.
_LIGHT_VALUES = 1000
_LIGHT_JSON = 128 * 1024
_LIGHT_OTHER = 4 * 1024


class TooLarge(Exception):
    """More bytes or values than an object may have; the text is that of the 413."""


class TooDeep(ValueError):
    """Nested deeper than MAX_DEPTH."""


def bytes_limit() -> TooLarge:
    return TooLarge(f"Request entity too large: limit is {MAX_BYTES}")


def values_limit() -> TooLarge:
    return TooLarge(f"Request entity too large: limit is {MAX_VALUES} values")


def is_light(body: bytes, media_type: str) -> bool:
    """Whether reading and checking the body takes a few milliseconds at most."""
    if not media_type.endswith("json"):
        # One alias stands for many values.
        return len(body) <= _LIGHT_OTHER and b"*" not in body
    if media_type == JSON_PATCH and b'"copy"' in body:
        return False
    return len(body) <= _LIGHT_JSON and _most_values(body) <= _LIGHT_VALUES


def load_json(body: bytes) -> Any:
    """Raises orjson.JSONDecodeError, TooDeep and TooLarge."""
    if len(body) > 2 * MAX_VALUES and _most_values(body) > MAX_VALUES and count_values(body) > MAX_VALUES:
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


def check_object(body: bytes) -> None:
    """Raises TooLarge for the JSON of an object that is about to be stored, which many patches may have made."""
    if len(body) > MAX_BYTES:
        raise bytes_limit()
    # A value takes two bytes at least.
    if len(body) > 2 * MAX_VALUES and _most_values(body) > MAX_VALUES and count_values(body) > MAX_VALUES:
        raise values_limit()


def _most_values(body: bytes) -> int:
    """An upper bound of the number of values in JSON: it also counts what stands in strings."""
    return body.count(b",") + body.count(b"[") + body.count(b"{") + 1


def count_values(body: bytes) -> int:
    """The values of JSON (an empty list counts as two), without decoding it."""
    text = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    total, inside = 1, False
    for start in range(0, len(text), _CHUNK):
        parts = text[start : start + _CHUNK].split(b'"')
        outside = b"".join(parts[inside::2])
        total += outside.count(b",") + outside.count(b"[") + outside.count(b"{")
        inside ^= len(parts) % 2 == 0
    return total


def check_depth(value: Any, most: int = MAX_DEPTH) -> None:
    """Raises TooDeep when more than `most` lists and objects stand in each other."""
    level = [value] if isinstance(value, dict | list) else []
    depth = 0
    while level:
        depth += 1
        if depth > most:
            raise TooDeep(TOO_DEEP)
        level = [
            inner
            for one in level
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, dict | list)
        ]
