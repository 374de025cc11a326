"""Structural schemas of custom resources: pruning, defaulting and validation
(https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema).

A schema is the decoded openAPIV3Schema. Paths in errors are upstream's: spec.ports[0].name."""

from __future__ import annotations

import copy
import ipaddress
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import orjson

from components.apiserver import patterns
from components.apiserver.kinds.spec import FieldError

Schema = Mapping[str, Any]

_PRESERVE = "x-kubernetes-preserve-unknown-fields"
_EMBEDDED = "x-kubernetes-embedded-resource"
_INT_OR_STRING = "x-kubernetes-int-or-string"
_OBJECT_FIELDS = frozenset({"apiVersion", "kind", "metadata"})


# --- pruning


def prune(value: Any, schema: Schema, path: str = "", *, root: bool = True) -> list[str]:
    """Removes, in place, what the schema does not name; returns the removed paths."""
    if isinstance(value, list):
        items = schema.get("items") or {}
        return [gone for index, item in enumerate(value) for gone in prune(item, items, f"{path}[{index}]", root=False)]
    if not isinstance(value, dict):
        return []
    properties, additional = schema.get("properties") or {}, schema.get("additionalProperties")
    known_anyway = _OBJECT_FIELDS if root or schema.get(_EMBEDDED) else frozenset()
    removed: list[str] = []
    for key in list(value):
        place = f"{path}.{key}" if path else key
        if key in known_anyway:
            continue
        if key in properties:
            removed += prune(value[key], properties[key], place, root=False)
        elif isinstance(additional, dict):
            removed += prune(value[key], additional, place, root=False)
        elif not additional and not schema.get(_PRESERVE):
            del value[key]
            removed.append(place)
    return removed


# --- defaults


def default(value: Any, schema: Schema) -> None:
    """Fills in, in place, defaults of absent fields; null counts as absent unless nullable."""
    if isinstance(value, list):
        for item in value:
            default(item, schema.get("items") or {})
        return
    if not isinstance(value, dict):
        return
    properties = schema.get("properties") or {}
    for key, inner in properties.items():
        if "default" in inner and (key not in value or (value[key] is None and not inner.get("nullable"))):
            value[key] = copy.deepcopy(inner["default"])
        if key in value:
            default(value[key], inner)
    additional = schema.get("additionalProperties")
    if isinstance(additional, dict):
        for key in value.keys() - properties.keys():
            default(value[key], additional)


# --- validation

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
}


def validate(value: Any, schema: Schema, path: str = "") -> list[FieldError]:
    """What the schema forbids, in the wording of kube-openapi's validation."""
    if value is None and schema.get("nullable"):
        return []
    if error := _type_error(value, schema, path):
        return [error]
    errors = [*_enum(value, schema, path), *_combinations(value, schema, path)]
    if isinstance(value, str):
        errors += _string(value, schema, path)
    elif isinstance(value, bool):
        pass
    elif isinstance(value, int | float):
        errors += _number(value, schema, path)
    elif isinstance(value, list):
        errors += _array(value, schema, path)
    elif isinstance(value, dict):
        errors += _object(value, schema, path)
    return errors


def _type_name(value: Any) -> str:
    if value is None:
        return "null"
    for name, types in _TYPES.items():
        if isinstance(value, types) and (name == "boolean") == isinstance(value, bool):
            return name
    return type(value).__name__


def _type_error(value: Any, schema: Schema, path: str) -> FieldError | None:
    wanted = schema.get("type", "")
    if schema.get(_INT_OR_STRING):
        if isinstance(value, int | str) and not isinstance(value, bool):
            return None
        wanted = "integer,string"
    elif not wanted:
        return None
    else:
        whole = wanted == "integer" and isinstance(value, float) and value.is_integer()
        if whole or (
            isinstance(value, _TYPES.get(wanted, (object,))) and (wanted == "boolean") == isinstance(value, bool)
        ):
            return None
    have = _type_name(value)
    return FieldError("TypeInvalid", path, have, f'{path} in body must be of type {wanted}: "{have}"')


def _enum(value: Any, schema: Schema, path: str) -> Iterator[FieldError]:
    allowed = schema.get("enum")
    if allowed is not None and value not in allowed:
        texts = ", ".join(f'"{one}"' if isinstance(one, str) else str(one) for one in allowed)
        yield FieldError("NotSupported", path, value, f"supported values: {texts}")


def _combinations(value: Any, schema: Schema, path: str) -> Iterator[FieldError]:
    for inner in schema.get("allOf") or []:
        yield from validate(value, inner, path)
    if (any_of := schema.get("anyOf")) and all(validate(value, inner, path) for inner in any_of):
        yield FieldError("Invalid", path, value, f"{path} in body must validate at least one schema (anyOf)")
    if one_of := schema.get("oneOf"):
        fitting = sum(not validate(value, inner, path) for inner in one_of)
        if fitting != 1:
            found = "Found none valid" if not fitting else f"Found {fitting} valid alternatives"
            text = f"{path} in body must validate one and only one schema (oneOf). {found}"
            yield FieldError("Invalid", path, value, text)
    if (forbidden := schema.get("not")) and not validate(value, forbidden, path):
        yield FieldError("Invalid", path, value, f"{path} in body must not validate the schema (not)")


def _string(value: str, schema: Schema, path: str) -> Iterator[FieldError]:
    if len(value) > schema.get("maxLength", len(value)):
        yield FieldError("TooLong", path, value, f"may not be more than {schema['maxLength']} bytes")
    if len(value) < schema.get("minLength", 0):
        text = f"{path} in body should be at least {schema['minLength']} chars long"
        yield FieldError("Invalid", path, value, text)
    if (pattern := schema.get("pattern")) and not patterns.found_in(pattern, value):
        yield FieldError("Invalid", path, value, f"{path} in body should match '{pattern}'")
    name = schema.get("format", "")
    if name in _FORMATS and not _FORMATS[name](value):
        yield FieldError("Invalid", path, value, f'{path} in body must be of type {name}: "{value}"')


def _number(value: float, schema: Schema, path: str) -> Iterator[FieldError]:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and (value <= low if schema.get("exclusiveMinimum") else value < low):
        relation = "greater than" if schema.get("exclusiveMinimum") else "greater than or equal to"
        yield FieldError("Invalid", path, value, f"{path} in body should be {relation} {low}")
    if high is not None and (value >= high if schema.get("exclusiveMaximum") else value > high):
        relation = "less than" if schema.get("exclusiveMaximum") else "less than or equal to"
        yield FieldError("Invalid", path, value, f"{path} in body should be {relation} {high}")
    if (step := schema.get("multipleOf")) and value % step:
        yield FieldError("Invalid", path, value, f"{path} in body should be a multiple of {step}")


def _array(value: list[Any], schema: Schema, path: str) -> Iterator[FieldError]:
    if len(value) < schema.get("minItems", 0):
        yield FieldError("Invalid", path, len(value), f"{path} in body should have at least {schema['minItems']} items")
    if len(value) > schema.get("maxItems", len(value)):
        yield FieldError("TooMany", path, len(value), f"must have at most {schema['maxItems']} items")
    yield from _duplicates(value, schema, path)
    for index, item in enumerate(value):
        yield from validate(item, schema.get("items") or {}, f"{path}[{index}]")


def _duplicates(value: list[Any], schema: Schema, path: str) -> Iterator[FieldError]:
    kind, keys = schema.get("x-kubernetes-list-type"), schema.get("x-kubernetes-list-map-keys") or []
    if kind not in ("set", "map"):
        return
    seen: set[bytes] = set()
    for index, item in enumerate(value):
        identity = {key: item.get(key) for key in keys} if kind == "map" and isinstance(item, dict) else item
        text = orjson.dumps(identity, option=orjson.OPT_SORT_KEYS)
        if text in seen:
            yield FieldError("Duplicate", f"{path}[{index}]", identity)
        seen.add(text)


def _object(value: dict[str, Any], schema: Schema, path: str) -> Iterator[FieldError]:
    def place(key: str) -> str:
        return f"{path}.{key}" if path else key

    for key in schema.get("required") or []:
        if key not in value:
            yield FieldError("Required", place(key), "")
    if len(value) < schema.get("minProperties", 0):
        text = f"{path} in body should have at least {schema['minProperties']} properties"
        yield FieldError("Invalid", path, len(value), text)
    if len(value) > schema.get("maxProperties", len(value)):
        yield FieldError("TooMany", path, len(value), f"must have at most {schema['maxProperties']} properties")
    properties, additional = schema.get("properties") or {}, schema.get("additionalProperties")
    for key, item in value.items():
        if key in properties:
            yield from validate(item, properties[key], place(key))
        elif isinstance(additional, dict):
            yield from validate(item, additional, place(key))


def _is_address(version: int) -> Any:
    def check(text: str) -> bool:
        try:
            return ipaddress.ip_address(text).version == version
        except ValueError:
            return False

    return check


def _is_cidr(text: str) -> bool:
    try:
        return bool(ipaddress.ip_interface(text)) and "/" in text
    except ValueError:
        return False


def _is_date_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


_FORMATS: dict[str, Any] = {
    "ipv4": _is_address(4),
    "ipv6": _is_address(6),
    "cidr": _is_cidr,
    "date-time": _is_date_time,
    "uuid": re.compile(r"(?i)[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}").fullmatch,
}


def list_keys(schema: Schema, names: tuple[str, ...]) -> tuple[str, ...] | None:
    """What identifies the items of the list at a path of names: the map keys, () for a set, None for one value."""
    node: Any = schema
    for name in names:
        node = (node or {}).get("items") or node or {}
        properties, additional = node.get("properties") or {}, node.get("additionalProperties")
        node = properties.get(name) or (additional if isinstance(additional, dict) else {})
    kind = node.get("x-kubernetes-list-type")
    if kind == "map":
        return tuple(node.get("x-kubernetes-list-map-keys") or ()) or None
    return () if kind == "set" else None
