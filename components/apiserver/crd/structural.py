"""Structural schemas of custom resources: pruning, defaulting and validation
(https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema).

A schema is the decoded openAPIV3Schema. Paths in errors are upstream's: spec.ports[0].name."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import islice
from typing import Any

import orjson

from kubewire.components.apiserver import bodies, patterns
from kubewire.components.apiserver.kinds.spec import FieldError
from kubewire.components.apiserver.status import MOST_ERRORS

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


# --- how much work a schema makes of an object


class Work:
    """What one object may cost: a schema of 100,000 values times an object of as many is more than anybody waits for,
    and defaults in each item of a list are more than memory holds. Upstream ends such a request by its timeout."""

    def __init__(self) -> None:
        self._checks = _MOST_CHECKS
        self._added = 0

    def check(self, number: int = 1) -> None:
        """Raises bodies.TooLarge."""
        self._checks -= number
        if self._checks < 0:
            raise bodies.TooLarge(f"Request entity too large: limit is {_MOST_CHECKS} checks of the schema")

    def add(self) -> None:
        """Raises bodies.TooLarge."""
        self._added += 1
        if self._added > bodies.MAX_VALUES:
            raise bodies.values_limit()


#: A check takes about a microsecond.
_MOST_CHECKS = 10_000_000


# --- defaults


def default(value: Any, schema: Schema) -> None:
    """Fills in, in place, defaults of absent fields; null counts as absent unless nullable. Raises bodies.TooLarge."""
    _default(value, schema, Work())


def _default(value: Any, schema: Schema, work: Work) -> None:
    if isinstance(value, list):
        work.check(len(value))
        for item in value:
            _default(item, schema.get("items") or {}, work)
        return
    if not isinstance(value, dict):
        return
    properties = schema.get("properties") or {}
    work.check(len(properties))
    for key, inner in properties.items():
        if "default" in inner and (key not in value or (value[key] is None and not inner.get("nullable"))):
            value[key] = _copied(inner["default"], work)
        if key in value:
            _default(value[key], inner, work)
    additional = schema.get("additionalProperties")
    if isinstance(additional, dict):
        for key in value.keys() - properties.keys():
            _default(value[key], additional, work)


def _copied(value: Any, work: Work) -> Any:
    work.add()
    if isinstance(value, dict):
        return {key: _copied(item, work) for key, item in value.items()}
    return [_copied(item, work) for item in value] if isinstance(value, list) else value


# --- validation

#: Comparisons with an enum's values that take as long as one check.
_COMPARED_AT_ONCE = 20
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
}


def validate(value: Any, schema: Schema, path: str = "") -> list[FieldError]:
    """What the schema forbids, in the wording of kube-openapi's validation; no more than an answer lists.

    Raises bodies.TooLarge."""
    return list(islice(_errors(value, schema, path, Work()), MOST_ERRORS))


def _errors(value: Any, schema: Schema, path: str, work: Work) -> Iterator[FieldError]:
    work.check()
    if value is None and schema.get("nullable"):
        return
    if error := _type_error(value, schema, path):
        yield error
        return
    yield from _enum(value, schema, path, work)
    yield from _combinations(value, schema, path, work)
    if isinstance(value, str):
        yield from _string(value, schema, path)
    elif isinstance(value, bool):
        pass
    elif isinstance(value, int | float):
        yield from _number(value, schema, path)
    elif isinstance(value, list):
        yield from _array(value, schema, path, work)
    elif isinstance(value, dict):
        yield from _object(value, schema, path, work)


def _fits(value: Any, schema: Schema, path: str, work: Work) -> bool:
    return next(_errors(value, schema, path, work), None) is None


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


def _enum(value: Any, schema: Schema, path: str, work: Work) -> Iterator[FieldError]:
    allowed = schema.get("enum")
    work.check(len(allowed or ()) // _COMPARED_AT_ONCE)
    if allowed is not None and value not in allowed:
        texts = ", ".join(f'"{one}"' if isinstance(one, str) else str(one) for one in allowed)
        yield FieldError("NotSupported", path, value, f"supported values: {texts}")


def _combinations(value: Any, schema: Schema, path: str, work: Work) -> Iterator[FieldError]:
    for inner in schema.get("allOf") or []:
        yield from _errors(value, inner, path, work)
    if (any_of := schema.get("anyOf")) and not any(_fits(value, inner, path, work) for inner in any_of):
        yield FieldError("Invalid", path, value, f"{path} in body must validate at least one schema (anyOf)")
    if one_of := schema.get("oneOf"):
        fitting = sum(_fits(value, inner, path, work) for inner in one_of)
        if fitting != 1:
            found = "Found none valid" if not fitting else f"Found {fitting} valid alternatives"
            text = f"{path} in body must validate one and only one schema (oneOf). {found}"
            yield FieldError("Invalid", path, value, text)
    if (forbidden := schema.get("not")) and _fits(value, forbidden, path, work):
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


def _array(value: list[Any], schema: Schema, path: str, work: Work) -> Iterator[FieldError]:
    if len(value) < schema.get("minItems", 0):
        yield FieldError("Invalid", path, len(value), f"{path} in body should have at least {schema['minItems']} items")
    if len(value) > schema.get("maxItems", len(value)):
        yield FieldError("TooMany", path, len(value), f"must have at most {schema['maxItems']} items")
    yield from _duplicates(value, schema, path)
    for index, item in enumerate(value):
        yield from _errors(item, schema.get("items") or {}, f"{path}[{index}]", work)


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


def _object(value: dict[str, Any], schema: Schema, path: str, work: Work) -> Iterator[FieldError]:
    def place(key: str) -> str:
        return f"{path}.{key}" if path else key

    work.check(len(schema.get("required") or ()))
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
            yield from _errors(item, properties[key], place(key), work)
        elif isinstance(additional, dict):
            yield from _errors(item, additional, place(key), work)


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
