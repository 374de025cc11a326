"""Structural schemas of custom resources: pruning, defaulting and validation.

A custom resource has no Go type. Its schema, an OpenAPI v3 subset, takes over the three tasks that
types have for built-in kinds: it removes unknown fields (pruning), fills in defaults, and rejects
wrong values. For the first two it must be *structural*: the tree of properties, items and
additionalProperties alone gives every field its type, and allOf, anyOf, oneOf and not may only add
value checks. Pruning and defaulting can then walk the object and that tree side by side, without
trying alternatives, and have a single possible result. The rules are in
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema.

The order is fixed: pruning and defaulting change the object in place before it is validated.
Pruning never removes apiVersion, kind and metadata, at the root or in an embedded resource,
because the API machinery itself handles these.

Users write the schemas, so a small object may need much work. Work limits it, since one request
must not occupy a thread for minutes. A schema is the decoded openAPIV3Schema, and paths in errors
are upstream's: spec.ports[0].name.
"""

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


def prune(value: Any, schema: Schema, path: str = "", *, root: bool = True) -> list[str]:
    """Removes, in place, fields that the schema does not specify; returns their paths."""
    if isinstance(value, list):
        items = schema.get("items") or {}
        removed_paths: list[str] = []
        for index, item in enumerate(value):
            removed_paths += prune(item, items, f"{path}[{index}]", root=False)
        return removed_paths
    if not isinstance(value, dict):
        return []
    properties = schema.get("properties") or {}
    additional = schema.get("additionalProperties")
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


class Work:
    """Limits the work for one object.

    A schema of 100,000 values may have to be checked against an object of as many values, and
    defaults in each item of a list may exceed the memory. Upstream ends such a request by its
    timeout.
    """

    def __init__(self) -> None:
        self._checks = _MOST_CHECKS
        self._added = 0

    def check(self, number: int = 1) -> None:
        """Counts checks; raises bodies.TooLarge when there are too many."""
        self._checks -= number
        if self._checks < 0:
            raise bodies.TooLarge(
                f"Request entity too large: limit is {_MOST_CHECKS} checks of the schema",
            )

    def add(self) -> None:
        """Counts a value added by a default; raises bodies.TooLarge when there are too many."""
        self._added += 1
        if self._added > bodies.MAX_VALUES:
            raise bodies.values_limit()


#: The most checks for one object; a check takes about a microsecond.
_MOST_CHECKS = 10_000_000


def default(value: Any, schema: Schema) -> None:
    """Fills in, in place, the defaults of absent fields; raises bodies.TooLarge.

    A null counts as absent unless the field is nullable.
    """
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
        is_absent = key not in value or (value[key] is None and not inner.get("nullable"))
        if "default" in inner and is_absent:
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


#: How many comparisons with an enum's values take as long as one check.
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
    """Returns the violations of the schema in the wording of kube-openapi's validation.

    It stops at the number of errors that an answer lists. Raises bodies.TooLarge.
    """
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
        is_whole = wanted == "integer" and isinstance(value, float) and value.is_integer()
        # In Python a bool is also an int.
        same_boolness = (wanted == "boolean") == isinstance(value, bool)
        if is_whole or (isinstance(value, _TYPES.get(wanted, (object,))) and same_boolness):
            return None
    have = _type_name(value)
    return FieldError(
        "TypeInvalid",
        path,
        have,
        f'{path} in body must be of type {wanted}: "{have}"',
    )


def _enum(value: Any, schema: Schema, path: str, work: Work) -> Iterator[FieldError]:
    allowed = schema.get("enum")
    work.check(len(allowed or ()) // _COMPARED_AT_ONCE)
    if allowed is not None and value not in allowed:
        texts = ", ".join(f'"{item}"' if isinstance(item, str) else str(item) for item in allowed)
        yield FieldError("NotSupported", path, value, f"supported values: {texts}")


def _combinations(value: Any, schema: Schema, path: str, work: Work) -> Iterator[FieldError]:
    for inner in schema.get("allOf") or []:
        yield from _errors(value, inner, path, work)
    any_of = schema.get("anyOf")
    if any_of and not any(_fits(value, inner, path, work) for inner in any_of):
        text = f"{path} in body must validate at least one schema (anyOf)"
        yield FieldError("Invalid", path, value, text)
    if one_of := schema.get("oneOf"):
        fitting = sum(_fits(value, inner, path, work) for inner in one_of)
        if fitting != 1:
            outcome = "Found none valid" if not fitting else f"Found {fitting} valid alternatives"
            text = f"{path} in body must validate one and only one schema (oneOf). {outcome}"
            yield FieldError("Invalid", path, value, text)
    if (forbidden := schema.get("not")) and _fits(value, forbidden, path, work):
        text = f"{path} in body must not validate the schema (not)"
        yield FieldError("Invalid", path, value, text)


def _string(value: str, schema: Schema, path: str) -> Iterator[FieldError]:
    if len(value) > schema.get("maxLength", len(value)):
        yield FieldError(
            "TooLong",
            path,
            value,
            f"may not be more than {schema['maxLength']} bytes",
        )
    if len(value) < schema.get("minLength", 0):
        text = f"{path} in body should be at least {schema['minLength']} chars long"
        yield FieldError("Invalid", path, value, text)
    if (pattern := schema.get("pattern")) and not patterns.found_in(pattern, value):
        yield FieldError("Invalid", path, value, f"{path} in body should match '{pattern}'")
    name = schema.get("format", "")
    if name in _FORMATS and not _FORMATS[name](value):
        text = f'{path} in body must be of type {name}: "{value}"'
        yield FieldError("Invalid", path, value, text)


def _number(value: float, schema: Schema, path: str) -> Iterator[FieldError]:
    low = schema.get("minimum")
    high = schema.get("maximum")
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
        text = f"{path} in body should have at least {schema['minItems']} items"
        yield FieldError("Invalid", path, len(value), text)
    if len(value) > schema.get("maxItems", len(value)):
        text = f"must have at most {schema['maxItems']} items"
        yield FieldError("TooMany", path, len(value), text)
    yield from _duplicates(value, schema, path)
    for index, item in enumerate(value):
        yield from _errors(item, schema.get("items") or {}, f"{path}[{index}]", work)


def _duplicates(value: list[Any], schema: Schema, path: str) -> Iterator[FieldError]:
    kind = schema.get("x-kubernetes-list-type")
    keys = schema.get("x-kubernetes-list-map-keys") or []
    if kind not in ("set", "map"):
        return
    seen: set[bytes] = set()
    for index, item in enumerate(value):
        identity = item
        if kind == "map" and isinstance(item, dict):
            identity = {key: item.get(key) for key in keys}
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
        text = f"must have at most {schema['maxProperties']} properties"
        yield FieldError("TooMany", path, len(value), text)
    properties = schema.get("properties") or {}
    additional = schema.get("additionalProperties")
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
    "uuid": re.compile(
        r"(?i)[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}",
    ).fullmatch,
}


def list_keys(schema: Schema, names: tuple[str, ...]) -> tuple[str, ...] | None:
    """The keys that identify the items of the list at a path of field names.

    It is () for a set and None for a list that is one value.
    """
    node: Any = schema
    for name in names:
        node = (node or {}).get("items") or node or {}
        properties = node.get("properties") or {}
        additional = node.get("additionalProperties")
        node = properties.get(name) or (additional if isinstance(additional, dict) else {})
    kind = node.get("x-kubernetes-list-type")
    if kind == "map":
        return tuple(node.get("x-kubernetes-list-map-keys") or ()) or None
    return () if kind == "set" else None
