"""Keys that stand twice in an object of a JSON body, which strict decoding reports.

A decoder keeps the last of them, so the body is looked at again. Every key is followed by a colon,
and counting colons is much faster than decoding: only a body that has more of them than what was
decoded from it is read key by key.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import orjson

#: More are not reported (sigs.k8s.io/json).
_MOST = 100


def duplicate_keys(body: bytes, decoded: Any) -> tuple[str, ...]:
    """Texts such as `duplicate field "spec.replicas"` for a body that has been decoded."""
    again = orjson.dumps(decoded)
    # Strings keep their colons, unless one is written as an escape.
    if b"\\u" not in body and body.count(b":") == again.count(b":"):
        return ()
    if _colons(body) == _colons(again):
        return ()
    pairs = json.loads(body, object_pairs_hook=_Pairs)
    found: dict[str, None] = {}
    for path in _paths(pairs, ""):
        found[f'duplicate field "{path}"'] = None
        if len(found) == _MOST:
            break
    return tuple(found)


def _colons(text: bytes) -> int:
    """The colons outside of strings."""
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join(text.split(b'"')[::2]).count(b":")


class _Pairs(list[tuple[str, Any]]):
    """The members of an object, in order and with repeated keys."""


def _paths(value: Any, prefix: str) -> Iterator[str]:
    if isinstance(value, _Pairs):
        seen = set[str]()
        for key, inner in value:
            path = f"{prefix}.{key}" if prefix else key
            if key in seen:
                yield path
            seen.add(key)
            yield from _paths(inner, path)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _paths(inner, f"{prefix}[{index}]")
