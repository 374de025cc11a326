"""What Go says of values that do not fit the types of built-in kinds (sigs.k8s.io/json, with the
texts of encoding/json), and the keys by which their lists are merged.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from kubewire.components.apiserver.openapi.models import (
    OBJECT_META,
    Model,
    all_models,
    of_kind,
    referenced,
)
from kubewire.components.kubeapi.quantity import parse_quantity
from kubewire.components.kubeapi.resources import KubeObject

_BOUNDS = {"i": 2**31, "l": 2**63}
_INTEGERS = {"i": "int32", "l": "int64"}
_PLAIN = {
    "s": "string",
    "b": "bool",
    "n": "float64",
    "i": "int32",
    "l": "int64",
    "y": "uint8",
    "x": "intstr.IntOrString",
}


def type_errors(obj: KubeObject, group: str, version: str, kind: str) -> list[str]:
    """Returns why the object cannot be decoded; the list is empty when it can be.

    It has at most one text, because Go stops at the first error:

        json: cannot unmarshal string into Go struct field ServicePort.spec.ports.port of type int32

    A null in a list or map is replaced, in place, by the zero value of its type, as in Go.
    """
    model = of_kind(group, version, kind)
    if model is None:
        return []
    return [text for text in [object_error(obj, model, "")] if text]


def metadata_error(metadata: Any) -> str:
    """Like type_errors, for the metadata of any object; "" when it can be decoded."""
    model = all_models()[OBJECT_META]
    if not isinstance(metadata, dict):
        json_kind = _json_kind(metadata)
        field = "Go struct field .metadata of type v1.ObjectMeta"
        return f"json: cannot unmarshal {json_kind} into {field}"
    return object_error(metadata, model, "metadata")


def object_error(obj: dict[str, Any], model: Model, prefix: str) -> str:
    for key, value in obj.items():
        kind = model.fields.get(key)
        if kind is None or value is None:
            continue
        path = f"{prefix}.{key}" if prefix else key
        if text := _value_error(value, kind, model, key, path):
            return text
    return ""


def _value_error(value: Any, kind: str, model: Model, key: str, path: str) -> str:
    match kind[0]:
        case "#":
            inner = referenced(kind)
            if inner is None:
                return ""
            return (
                object_error(value, inner, path)
                if isinstance(value, dict)
                else _mismatch(value, kind, model, key, path)
            )
        case "[":
            if not isinstance(value, list):
                return _mismatch(value, kind, model, key, path)
            return _items_error(value, enumerate(value), kind[1:], model, key, path)
        case "{":
            if not isinstance(value, dict):
                return _mismatch(value, kind, model, key, path)
            return _items_error(value, value.items(), kind[1:], model, key, path)
    if kind == "o" and key in SUBSCHEMAS and model.short == "JSONSchemaProps":
        return _subschema_error(value, model, key, path)
    return _scalar_error(value, kind, model, key, path)


def _items_error(
    owner: Any,
    items: Iterable[tuple[Any, Any]],
    kind: str,
    model: Model,
    key: str,
    path: str,
) -> str:
    """Checks the items of owner, a list or a map; each item comes with its index or key."""
    for place, item in items:
        if item is None:
            # This does not change the keys, so it is safe during the iteration.
            owner[place] = ZERO.get(kind[0], dict)()
        elif text := _value_error(item, kind, model, key, path):
            return text
    return ""


#: Creates the value that Go uses for a null in a list or map; types that are not listed are
#: objects.
ZERO: dict[str, Callable[[], Any]] = {
    "s": str,
    "y": str,
    "b": bool,
    "i": int,
    "l": int,
    "n": int,
    "x": int,
    "q": lambda: "0",
    "[": list,
    "o": lambda: None,
    "t": lambda: None,
    "u": lambda: None,
}

#: Fields of a schema that contain schemas. The API's own schema allows any value for them.
SUBSCHEMAS = frozenset({"items", "additionalItems", "additionalProperties"})


def _subschema_error(value: Any, model: Model, key: str, path: str) -> str:
    """Checks a JSONSchemaPropsOrArray or JSONSchemaPropsOrBool."""
    if isinstance(value, dict):
        return object_error(value, model, path)
    if key == "items":
        if not isinstance(value, list):
            return _mismatch(value, f"#{model.name}", model, key, path)
        return _items_error(value, enumerate(value), f"#{model.name}", model, key, path)
    return "" if isinstance(value, bool) else "boolean or JSON schema expected"


def _scalar_error(value: Any, kind: str, model: Model, key: str, path: str) -> str:
    match kind:
        case "s":
            fits = isinstance(value, str)
        case "b":
            fits = isinstance(value, bool)
        case "n":
            fits = isinstance(value, int | float) and not isinstance(value, bool)
        case "i" | "l":
            is_whole = isinstance(value, int) and not isinstance(value, bool)
            fits = is_whole and -_BOUNDS[kind] <= value < _BOUNDS[kind]
        case "x":
            return int_or_string_error(value)
        case "t" | "u":
            return time_error(value)
        case "q":
            return quantity_error(value)
        case "y":
            return (
                bytes_error(value)
                if isinstance(value, str)
                else _mismatch(value, "[y", model, key, path)
            )
        case _:
            return ""
    return "" if fits else _mismatch(value, kind, model, key, path)


def int_or_string_error(value: Any) -> str:
    if isinstance(value, str):
        return ""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31:
        return ""
    return f"json: cannot unmarshal {_json_kind(value)} into Go value of type int32"


def time_error(value: Any) -> str:
    if not isinstance(value, str):
        return f"json: cannot unmarshal {_json_kind(value)} into Go value of type string"
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError:
        parsed = None
    if parsed is not None and parsed.tzinfo is not None and "T" in value:
        return ""
    layout = "2006-01-02T15:04:05Z07:00"
    return f'parsing time "{value}" as "{layout}": cannot parse "{value}" as "2006"'


def quantity_error(value: Any) -> str:
    is_scalar = isinstance(value, int | float | str) and not isinstance(value, bool)
    if is_scalar and not _not_finite(value):
        try:
            parse_quantity(value)
        except ValueError as error:
            return str(error)
        return ""
    pattern = "^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$"
    return f"quantities must match the regular expression '{pattern}'"


def _not_finite(value: int | float | str) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def bytes_error(value: str) -> str:
    try:
        base64.b64decode(value.replace("\n", "").replace("\r", ""), validate=True)
    except (binascii.Error, ValueError):
        return f"illegal base64 data at input byte {_first_illegal(value)}"
    return ""


def _first_illegal(value: str) -> int:
    """Where Go's base64 decoder stops.

    This is the first byte outside the alphabet, or else the end of the last whole quantum.
    """
    for index, char in enumerate(value.rstrip("=")):
        if not (char.isascii() and (char.isalnum() or char in "+/\r\n")):
            return index
    return len(value) // 4 * 4


def _mismatch(value: Any, kind: str, model: Model, key: str, path: str) -> str:
    json_kind = _json_kind(value)
    if json_kind == "number" and kind in _INTEGERS:
        json_kind = f"number {value}"
    return (
        f"json: cannot unmarshal {json_kind} into Go struct field {model.short}.{path} of type "
        f"{_go_type(kind, model, key)}"
    )


def _go_type(kind: str, model: Model, key: str) -> str:
    match kind[0]:
        case "#":
            inner = referenced(kind)
            return inner.go_type if inner is not None else ""
        case "[":
            return "[]" + _go_type(kind[1:], model, key)
        case "{":
            if kind == "{q":
                return "v1.ResourceList"
            return "map[string]" + _go_type(kind[1:], model, key)
        case "s" if key in model.named:
            return model.named[key]
        case "y":
            return "uint8" if kind == "y" else "[]uint8"
    return _PLAIN.get(kind, kind)


def _json_kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def merge_key(group: str, version: str, kind: str, path: tuple[str, ...]) -> str | None:
    """The key by which a strategic merge patch merges the list at a path of field names.

    It is "set" for lists of plain values that are merged as sets, and None for lists that are
    replaced and for unknown paths.
    """
    owner, key = _owner(group, version, kind, path)
    if owner is None or key not in owner.patch or not owner.fields[key].startswith("["):
        return None
    return owner.patch[key].merge_key or "set"


def list_map_keys(
    group: str,
    version: str,
    kind: str,
    path: tuple[str, ...],
) -> tuple[str, ...] | None:
    """x-kubernetes-list-map-keys, which identify an item in server-side apply.

    It is () for sets and None for atomic lists.
    """
    owner, key = _owner(group, version, kind, path)
    if owner is None:
        return None
    if key in owner.list_keys:
        return owner.list_keys[key]
    name = merge_key(group, version, kind, path)
    if name is None:
        return None
    return () if name == "set" else (name,)


def _owner(group: str, version: str, kind: str, path: tuple[str, ...]) -> tuple[Model | None, str]:
    """The model that has the last field of the path, and that field."""
    model = of_kind(group, version, kind)
    for key in path[:-1]:
        if model is None or key not in model.fields:
            return None, ""
        model = referenced(model.fields[key])
    key = path[-1] if path else ""
    return (model, key) if model is not None and key in model.fields else (None, "")
