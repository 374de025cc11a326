"""JSON that somebody else wrote, on sockets and in files: an object, not nested deeper than Python can follow."""

from __future__ import annotations

import json
from typing import Any


def parse_object(text: str | bytes) -> dict[str, Any]:
    """Raises ValueError, whose text says what it is instead."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(value, dict):
        raise ValueError(f"not a JSON object but {type(value).__name__}")
    return value


def typed(values: Any, *kinds: type) -> Any:
    """A list that has values of just these types, one each (a boolean is no number). Raises TypeError, ValueError."""
    if not isinstance(values, list) or len(values) != len(kinds):
        raise ValueError(f"{len(kinds)} values are wanted, not {values!r:.60}")
    for value, kind in zip(values, kinds, strict=True):
        if type(value) is not kind:
            raise TypeError(f"{value!r:.40} is not of the type {kind.__name__}")
    return values


def text_map(value: Any) -> dict[str, str]:
    """A mapping of strings. Raises TypeError."""
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise TypeError(f"a mapping of strings is wanted, not {value!r:.60}")
    return value
