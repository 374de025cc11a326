"""Objects and parts of objects with fewer fields, for what an informer keeps in memory. Pure."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any, TypeVar

#: A TypedDict of types.py.
_Struct = TypeVar("_Struct", bound=Mapping[str, Any])


def only(names: Container[str], struct: _Struct) -> _Struct:
    """A copy with the fields of these names. It has the same type, in which almost every field may
    be absent."""
    kept: Any = {name: value for name, value in struct.items() if name in names}
    fewer: _Struct = kept
    return fewer
