"""Evaluates the rules of x-kubernetes-validations on a custom object
(apiextensions' apiserver/schema/cel/validation.go).

The rules are compiled when the first object is validated, in the thread that validates it: the
definition's own write has checked that they compile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from kubewire.components.apiserver.cel.engine import CompileError, EvaluationError
from kubewire.components.apiserver.cel.schematypes import with_resource
from kubewire.components.apiserver.cel.schemavalues import Converter, converter
from kubewire.components.apiserver.cel.selfrules import SelfRule, compile_rule, untyped
from kubewire.components.apiserver.kinds.spec import OMITTED, ErrorType, FieldError

Schema = Mapping[str, Any]

RULES = "x-kubernetes-validations"
SKIPPED = FieldError(
    "Invalid",
    "<nil>",
    None,
    "some validation rules were not checked because the object was invalid; "
    "correct the existing errors to complete validation",
)
_REASONS: dict[str, ErrorType] = {
    "FieldValueForbidden": "Forbidden",
    "FieldValueRequired": "Required",
    "FieldValueDuplicate": "Duplicate",
}


@dataclass(frozen=True)
class Node:
    """The rules at one place of a schema, and the places below it that have rules."""

    schema: Schema
    rules: tuple[Schema, ...]
    properties: Mapping[str, Node] = field(default_factory=dict)
    values: Node | None = None
    items: Node | None = None
    all_of: tuple[Node, ...] = ()

    @cached_property
    def compiled(self) -> list[SelfRule | CompileError]:
        found: list[SelfRule | CompileError] = []
        for rule in self.rules:
            try:
                found.append(compile_rule(rule, untyped))
            except CompileError as error:
                found.append(error)
        return found

    @cached_property
    def convert(self) -> Converter | None:
        return converter(self.schema)

    @property
    def type(self) -> str:
        return str(self.schema.get("type") or "")


def tree(schema: Schema, root: bool = True) -> Node | None:
    """The rules of a schema; None when it has none at all."""
    whole = (
        with_resource(schema) if root or schema.get("x-kubernetes-embedded-resource") else schema
    )
    return _node(whole, whole)


def _node(rules_of: Schema, schema: Schema) -> Node | None:
    """The rules of one schema for values of another, which differ below allOf."""
    properties = {}
    for name, inner in (rules_of.get("properties") or {}).items():
        typed = (schema.get("properties") or {}).get(name)
        if typed is not None and (below := _below(inner, typed)) is not None:
            properties[name] = below
    values = items = None
    additional, typed = rules_of.get("additionalProperties"), schema.get("additionalProperties")
    if isinstance(additional, Mapping) and isinstance(typed, Mapping):
        values = _below(additional, typed)
    if rules_of.get("items") and schema.get("items"):
        items = _below(rules_of["items"], schema["items"])
    parts = (_node(part, schema) for part in rules_of.get("allOf") or ())
    all_of = tuple(part for part in parts if part is not None)
    rules = tuple(rules_of.get(RULES) or ())
    if not (rules or properties or values or items or all_of):
        return None
    return Node(schema, rules, properties, values, items, all_of)


def _below(rules_of: Schema, schema: Schema) -> Node | None:
    if schema is rules_of and schema.get("x-kubernetes-embedded-resource"):
        return tree(schema, root=False)
    return _node(rules_of, schema)


def errors(node: Node, value: Any, old: Any) -> list[FieldError]:
    """What the rules say of an object; old is the stored one, or None at a creation.

    A broken rule is no error while the value that breaks it stays as it was (ratcheting), because
    an object must stay editable when its definition becomes stricter.
    """
    return list(_errors(node, value, old, "", lambda: False))


def _errors(
    node: Node, value: Any, old: Any, path: str, unchanged_above: Callable[[], bool]
) -> Iterator[FieldError]:
    if value is None:
        return

    def unchanged() -> bool:
        return bool(old == value) if old is not None else unchanged_above()

    yield from _own_errors(node, value, old, path, unchanged)
    for part in node.all_of:
        yield from _errors(part, value, old, path, unchanged_above)
    if isinstance(value, dict):
        for key, inner, below, place in _members(node, value, path):
            before = old.get(key) if isinstance(old, dict) else None
            yield from _errors(below, inner, before, place, unchanged)
    elif isinstance(value, list) and node.items is not None:
        find = _finder(node.schema, old)
        for index, item in enumerate(value):
            yield from _errors(node.items, item, find(item), f"{path}[{index}]", unchanged)


def _members(node: Node, value: dict[str, Any], path: str) -> Iterator[tuple[str, Any, Node, str]]:
    for key, inner in value.items():
        if node.values is not None:
            yield key, inner, node.values, f"{path}[{key}]"
        if key in node.properties:
            yield key, inner, node.properties[key], f"{path}.{key}" if path else key


def _finder(schema: Schema, old: Any) -> Callable[[Any], Any]:
    """Finds the old item for an item. Only items of a list of type map have an identity."""
    if schema.get("x-kubernetes-list-type") != "map" or not isinstance(old, list):
        return lambda item: None
    keys = schema.get("x-kubernetes-list-map-keys") or ()

    def identity(item: Any) -> Any:
        return tuple(str(item.get(key)) for key in keys) if isinstance(item, dict) else None

    known = {identity(item): item for item in old}
    return lambda item: known.get(identity(item))


def _own_errors(
    node: Node, value: Any, old: Any, path: str, unchanged: Callable[[], bool]
) -> Iterator[FieldError]:
    if not node.rules:
        return
    place = path or "<nil>"
    shown = node.convert(value) if node.convert else value
    before = node.convert(old) if node.convert and old is not None else old
    for rule in node.compiled:
        if isinstance(rule, CompileError):
            yield FieldError("Invalid", place, node.type, f"rule compile error: {rule}")
            continue
        # A rule about a transition needs something to compare with.
        if rule.uses_old and old is None and not rule.optional_old:
            continue
        try:
            if rule.holds(shown, before) or (not rule.uses_old and unchanged()):
                continue
        except EvaluationError as error:
            yield FieldError("Invalid", place, node.type, _failed(rule, error))
            continue
        yield _broken(node, rule, value, shown, before, path)


def _failed(rule: SelfRule, error: EvaluationError) -> str:
    if str(error) == "no such overload":
        text = "call arguments did not match a supported operator, function or macro signature"
        return f"'{error}': {text} for rule: {rule.text}"
    return f"{error} evaluating rule: {rule.text}"


def _broken(
    node: Node, rule: SelfRule, value: Any, shown: Any, before: Any, path: str
) -> FieldError:
    inner = str(rule.rule.get("fieldPath") or "").removeprefix(".")
    place = f"{path}.{inner}" if path and inner else path or inner or "<nil>"
    kind = _REASONS.get(str(rule.rule.get("reason") or ""), "Invalid")
    bad = OMITTED if node.type in ("object", "array") else value
    if kind == "Duplicate":
        return FieldError(kind, place, bad)
    return FieldError(kind, place, bad, rule.complaint(shown, before))
