"""JSON from other programs, on sockets and in files: it must be an object, nested no deeper than
Python can parse."""

from __future__ import annotations

import json
from typing import Any


def parse_object(text: str | bytes) -> dict[str, Any]:
    """Raises ValueError, whose text says what the document is instead."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(value, dict):
        raise ValueError(f"not a JSON object but {type(value).__name__}")
    return value


def typed(values: Any, *kinds: type) -> Any:
    """Returns values if it is a list of exactly these types (a boolean is not an int). Raises
    TypeError, ValueError."""
    if not isinstance(values, list) or len(values) != len(kinds):
        raise ValueError(f"expected {len(kinds)} values, not {values!r:.60}")
    for value, kind in zip(values, kinds, strict=True):
        if type(value) is not kind:
            raise TypeError(f"{value!r:.40} is not of the type {kind.__name__}")
    return values


def text_map(value: Any) -> dict[str, str]:
    """Returns value if it is a mapping of strings. Raises TypeError."""
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise TypeError(f"expected a mapping of strings, not {value!r:.60}")
    return value
