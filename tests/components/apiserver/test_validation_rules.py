"""The rules of x-kubernetes-validations in CustomResourceDefinitions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kubewire.components.apiserver.crd import validationrules
from kubewire.components.apiserver.kinds.cluster import schemarules
from tests.components.apiserver.plainclient import PlainClient
from tests.components.apiserver.running import RunningApiServer

STRING = {"type": "string"}
INTEGER = {"type": "integer"}


def spec(*rules: dict[str, Any], **properties: Any) -> dict[str, Any]:
    """A schema whose spec has these rules and properties."""
    inner = {"type": "object", "properties": properties, "x-kubernetes-validations": list(rules)}
    return {"type": "object", "properties": {"spec": inner}}


def rule(text: str, **more: Any) -> dict[str, Any]:
    return {"rule": text, **more}


def said(schema: dict[str, Any], new: Any, old: Any = None) -> list[str]:
    tree = validationrules.tree(schema)
    assert tree is not None
    before = None if old is None else {"spec": old}
    return [error.message() for error in validationrules.errors(tree, {"spec": new}, before)]


MIN_MAX = spec(rule("self.min <= self.max"), min=INTEGER, max=INTEGER)
EVALUATIONS: dict[str, tuple[dict[str, Any], Any, list[str]]] = {
    "a rule that holds": (MIN_MAX, {"min": 1, "max": 2}, []),
    "a broken rule names itself": (MIN_MAX, {"min": 3, "max": 2}, ["spec: Invalid value: failed rule: self.min <= self.max"]),
    "a message": (spec(rule("self.a > 1", message="too small"), a=INTEGER), {"a": 1}, ["spec: Invalid value: too small"]),
    "a message expression": (
        spec(rule("self.a > 1", messageExpression="'%d is too small'.format([self.a])"), a=INTEGER),
        {"a": 1},
        ["spec: Invalid value: 1 is too small"],
    ),
    "a message expression that fails leaves the message": (
        spec(rule("self.a > 1", message="small", messageExpression="self.b"), a=INTEGER, b=STRING), {"a": 1}, ["spec: Invalid value: small"],
    ),
    "a field path": (spec(rule("self.a > 1", fieldPath=".a"), a=INTEGER), {"a": 1}, ["spec.a: Invalid value: failed rule: self.a > 1"]),
    "the reason Forbidden": (spec(rule("false", reason="FieldValueForbidden", message="no")), {}, ["spec: Forbidden: no"]),
    "the reason Required": (spec(rule("has(self.a)", reason="FieldValueRequired", message="a!"), a=STRING), {}, ["spec: Required value: a!"]),
    "the reason Duplicate": (spec(rule("false", reason="FieldValueDuplicate")), {}, ["spec: Duplicate value"]),
    "an absent field": (MIN_MAX, {"min": 1}, ['spec: Invalid value: "object": no such key: max evaluating rule: self.min <= self.max']),
    "a scalar shows its value": (
        spec(a={"type": "string", "x-kubernetes-validations": [rule("self != 'x'")]}), {"a": "x"}, ["spec.a: Invalid value: \"x\": failed rule: self != 'x'"],
    ),
    "items by their index": (
        spec(a={"type": "array", "items": {"type": "integer", "x-kubernetes-validations": [rule("self > 0")]}}),
        {"a": [1, 0]},
        ["spec.a[1]: Invalid value: 0: failed rule: self > 0"],
    ),
    "values by their key": (
        spec(a={"type": "object", "additionalProperties": {"type": "integer", "x-kubernetes-validations": [rule("self > 0")]}}),
        {"a": {"k": 0}},
        ["spec.a[k]: Invalid value: 0: failed rule: self > 0"],
    ),
    "dates are times": (
        spec(rule("self.at > timestamp('2020-01-01T00:00:00Z')"), at={"type": "string", "format": "date-time"}), {"at": "2021-01-01T00:00:00Z"}, [],
    ),
    "durations are durations": (spec(rule("self.d < duration('1h')"), d={"type": "string", "format": "duration"}), {"d": "30m"}, []),
    "names that are no identifiers are escaped": (spec(rule("self.a__dash__b == 1 && self.__namespace__ == 'n'"), **{"a-b": INTEGER, "namespace": STRING}), {"a-b": 1, "namespace": "n"}, []),
    "integers or strings are dynamic": (
        spec(rule("type(self.p) == int ? self.p > 0 : self.p != ''"), p={"x-kubernetes-int-or-string": True}), {"p": ""},
        ["spec: Invalid value: failed rule: type(self.p) == int ? self.p > 0 : self.p != ''"],
    ),
    "rules in allOf": ({"type": "object", "properties": {"spec": {"type": "object", "properties": {"a": INTEGER}, "allOf": [{"x-kubernetes-validations": [rule("self.a > 0")]}]}}}, {"a": 0}, ["spec: Invalid value: failed rule: self.a > 0"]),
    "numbers compare with integers": (spec(rule("self.n >= 1"), n={"type": "number"}), {"n": 1}, []),
}  # fmt: skip


@pytest.mark.parametrize("case", EVALUATIONS)
def test_an_evaluation_of(case: str) -> None:
    schema, value, expected = EVALUATIONS[case]
    assert said(schema, value) == expected


IMMUTABLE = spec(rule("self.a == oldSelf.a", message="immutable"), a=STRING)
OPTIONAL = spec(
    rule("oldSelf.hasValue() ? oldSelf.value().a == self.a : self.a == 'first'", optionalOldSelf=True), a=STRING
)
MAP = {
    "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
    "items": {"type": "object", "properties": {"k": STRING, "v": STRING}, "x-kubernetes-validations": [rule("self.v == oldSelf.v")]},
}  # fmt: skip
RATCHETED = spec(
    a={"type": "object", "properties": {"x": INTEGER}, "x-kubernetes-validations": [rule("self.x > 0")]}, b=INTEGER
)
TRANSITIONS: dict[str, tuple[dict[str, Any], Any, Any, int]] = {
    "are not checked at a creation": (IMMUTABLE, {"a": "x"}, None, 0),
    "hold": (IMMUTABLE, {"a": "x"}, {"a": "x"}, 0),
    "are broken": (IMMUTABLE, {"a": "y"}, {"a": "x"}, 1),
    "with an optional old value are checked at a creation": (OPTIONAL, {"a": "x"}, None, 1),
    "with an optional old value hold at a creation": (OPTIONAL, {"a": "first"}, None, 0),
    "with an optional old value are checked at an update": (OPTIONAL, {"a": "y"}, {"a": "x"}, 1),
    "find the old item by its keys": (spec(l=MAP), {"l": [{"k": "b", "v": "2"}, {"k": "a", "v": "1"}]}, {"l": [{"k": "a", "v": "1"}]}, 0),
    "find a changed item by its keys": (spec(l=MAP), {"l": [{"k": "a", "v": "2"}]}, {"l": [{"k": "a", "v": "1"}]}, 1),
    "let a broken value be that did not change": (RATCHETED, {"a": {"x": 0}, "b": 2}, {"a": {"x": 0}, "b": 1}, 0),
    "do not let a changed value be": (RATCHETED, {"a": {"x": -1}}, {"a": {"x": 0}}, 1),
}  # fmt: skip


@pytest.mark.parametrize("case", TRANSITIONS)
def test_transitions(case: str) -> None:
    schema, new, old, number = TRANSITIONS[case]
    assert len(said(schema, new, old)) == number


LIST = {
    "type": "array",
    "items": {"type": "object", "properties": {"v": STRING}, "x-kubernetes-validations": [rule("self.v == oldSelf.v")]},
}
RULE_AT = "schema.properties[spec].x-kubernetes-validations[0]"
REFUSALS: dict[str, tuple[dict[str, Any], str, str]] = {
    "an empty rule": (spec(rule(" ")), f"{RULE_AT}.rule: Required value: rule is not specified", ""),
    "a syntax error": (spec(rule("1 +")), f"{RULE_AT}.rule: Invalid value: ", "compilation failed: ERROR: <input>:1:4: Syntax error: mismatched input '<EOF>' expecting"),
    "a field that is not there": (spec(rule("self.b > 1"), a=INTEGER), f"{RULE_AT}.rule: Invalid value: ", "compilation failed: ERROR: <input>:1:5: undefined field 'b'"),
    "wrong types": (spec(rule("self.a == 'x'"), a=INTEGER), f"{RULE_AT}.rule: Invalid value: ", "compilation failed: ERROR: <input>:1:8: found no matching overload for '_==_' applied to '(int, string)'"),
    "what is no boolean": (spec(rule("self.a"), a=INTEGER), f"{RULE_AT}.rule: Invalid value: ", '"OptionalOldSelf":null}: cel expression must evaluate to a bool'),
    "a message that is no text": (spec(rule("true", messageExpression="1")), f"{RULE_AT}.messageExpression: Invalid value: ", "messageExpression must evaluate to a string"),
    "a wrong message": (spec(rule("true", messageExpression="x")), f"{RULE_AT}.messageExpression: Invalid value: ", "messageExpression compilation failed: ERROR: <input>:1:1: undeclared reference to 'x'"),
    "a path that leads nowhere": (spec(rule("true", fieldPath=".x"), a=INTEGER), f'{RULE_AT}.fieldPath: Invalid value: ".x": must be a valid path', ""),
    "an unknown reason": (spec(rule("true", reason="X")), f'{RULE_AT}.reason: Unsupported value: "X": supported values: "FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"', ""),
    "an old item without identity": (spec(l=LIST), "schema.properties[spec].properties[l].items.x-kubernetes-validations[0].rule: Invalid value: ", "oldSelf cannot be used on the uncorrelatable portion of the schema within schema.properties[spec].properties[l]"),
    "an optional old value that nobody uses": (spec(rule("true", optionalOldSelf=True)), f"{RULE_AT}.optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule", ""),
    "lines without a message": (spec(rule("true ||\nfalse")), f"{RULE_AT}.message: Required value: message must be specified if rule contains line breaks", ""),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_a_definition_is_refused_for(case: str) -> None:
    schema, begin, part = REFUSALS[case]
    (error,) = schemarules.errors(schema, "schema")
    assert error.message().startswith(begin) and part in error.message()


ACCEPTED: dict[str, dict[str, Any]] = {
    "the metadata of the object": {"type": "object", "x-kubernetes-validations": [rule("self.metadata.name.startsWith('a') && self.kind != ''")]},
    "presence": spec(rule("has(self.a) && !has(self.l)"), a=INTEGER, l={"type": "array", "items": STRING}),
    "optional fields": spec(rule("self.?a.orValue(1) > 0"), a=INTEGER),
    "loops with two variables": spec(rule("self.m.all(k, v, k != v)"), m={"type": "object", "additionalProperties": STRING}),
    "lists of maps": spec(rule("self.l.all(x, x.k != '')"), l=MAP["items"] and {"type": "array", "items": {"type": "object", "properties": {"k": STRING}}}),
    "quantities, addresses and URLs": spec(rule("isQuantity(self.a) || isIP(self.a) || isURL(self.a)"), a=STRING),
    "nullable fields": spec(rule("self.a == null || self.a > 1"), a={"type": "integer", "nullable": True}),
    "unknown fields": spec(rule("has(self.free) && self.free.x == 1"), free={"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
}  # fmt: skip


@pytest.mark.parametrize("case", ACCEPTED)
def test_a_rule_may_use(case: str) -> None:
    assert schemarules.errors(ACCEPTED[case], "schema") == []


@pytest.fixture(scope="module")
def client(server: RunningApiServer) -> PlainClient:
    return PlainClient(server)


Define = Callable[[dict[str, Any]], Any]


@pytest.fixture
def define(client: PlainClient) -> Iterator[Define]:
    """Creates a definition with this schema."""
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

    def act(schema: dict[str, Any]) -> Any:
        version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
        names = {"plural": "ruled", "kind": "Ruled"}
        body = {"group": "example.com", "names": names, "scope": "Cluster", "versions": [version]}
        return client("POST", path, {"metadata": {"name": "ruled.example.com"}, "spec": body})

    yield act
    client("DELETE", f"{path}/ruled.example.com")


def test_the_server_refuses_what_breaks_a_rule(client: PlainClient, define: Define) -> None:
    assert define(spec(rule("self.a == oldSelf.a"), rule("self.a > 1"), a=INTEGER)).code == 201
    path = "/apis/example.com/v1/ruled"

    def ruled(value: int, **metadata: str) -> dict[str, Any]:
        return {
            "apiVersion": "example.com/v1",
            "kind": "Ruled",
            "metadata": {"name": "r"} | metadata,
            "spec": {"a": value},
        }

    refused = client("POST", path, ruled(1))
    assert (refused.code, refused.message) == (
        422,
        'Ruled.example.com "r" is invalid: spec: Invalid value: failed rule: self.a > 1',
    )
    created = client("POST", path, ruled(2))
    assert created.code == 201
    changed = client("PUT", f"{path}/r", ruled(3, resourceVersion=created.body["metadata"]["resourceVersion"]))
    assert (changed.code, changed.message) == (
        422,
        'Ruled.example.com "r" is invalid: spec: Invalid value: failed rule: self.a == oldSelf.a',
    )


SKIPPED = "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation"
TOGETHER: dict[str, tuple[Any, str]] = {
    "a wrong type hides the rules": ("x", f'[spec.a: Invalid value: "string": spec.a in body must be of type integer: "string", {SKIPPED}]'),
    "a value out of range does not": (99, "[spec.a: Invalid value: 99: spec.a in body should be less than or equal to 9, spec: Invalid value: failed rule: self.a != 99]"),
}  # fmt: skip


@pytest.mark.parametrize("case", TOGETHER)
def test_a_schema_and_its_rules(client: PlainClient, define: Define, case: str) -> None:
    value, text = TOGETHER[case]
    assert define(spec(rule("self.a != 99"), a=INTEGER | {"maximum": 9})).code == 201
    body = {"apiVersion": "example.com/v1", "kind": "Ruled", "metadata": {"name": "r"}, "spec": {"a": value}}
    assert client("POST", "/apis/example.com/v1/ruled", body).message == f'Ruled.example.com "r" is invalid: {text}'


def test_the_server_refuses_a_wrong_rule(define: Define) -> None:
    answer = define(spec(rule("self.b"), a=INTEGER))
    assert answer.code == 422
    assert (
        "spec.versions[0].schema.openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule: Invalid value:"
        in answer.message
    )
    assert "undefined field 'b'" in answer.message
