"""ValidatingAdmissionPolicy and MutatingAdmissionPolicy, and the match conditions of webhooks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kubewire.components.apiserver.cel.mutations import as_maps
from kubewire.components.apiserver.kinds.cluster import policies
from tests.components.apiserver.plainclient import Answer, PlainClient
from tests.components.apiserver.running import RunningApiServer
from tests.components.apiserver.webhooks import WebhookServer

GROUP = "/apis/admissionregistration.k8s.io/v1"
PATH = "/api/v1/namespaces/default/configmaps"
RULE = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["*"]}


@pytest.fixture(scope="module")
def client(server: RunningApiServer) -> PlainClient:
    return PlainClient(server)


Bind = Callable[..., Answer]


@pytest.fixture
def bind(client: PlainClient) -> Iterator[Bind]:
    """bind("validating", spec, binding): a policy `p` with a binding `b`, gone after the test."""
    made: list[str] = []

    def act(kind: str, spec: dict[str, Any], binding: dict[str, Any] | None = None) -> Answer:
        constraints = {"matchConstraints": {"resourceRules": [RULE]}}
        path = f"{GROUP}/{kind}admissionpolicies"
        answer = client("POST", path, {"metadata": {"name": "p"}, "spec": constraints | spec})
        if answer.code != 201:
            return answer
        made.append(f"{path}/p")
        path = f"{GROUP}/{kind}admissionpolicybindings"
        own: dict[str, Any] = {"policyName": "p"} | ({"validationActions": ["Deny"]} if kind == "validating" else {})
        answer = client("POST", path, {"metadata": {"name": "b"}, "spec": own | (binding or {})})
        if answer.code == 201:
            made.append(f"{path}/b")
        return answer

    yield act
    for path in made:
        client("DELETE", path)
    for item in client("GET", PATH).body["items"]:
        client("DELETE", f"{PATH}/{item['metadata']['name']}")


def configmap(name: str = "one", **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {"app": "x"}}, "data": data}


DENIED = "configmaps \"one\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: "
VALIDATIONS: dict[str, tuple[dict[str, Any], str]] = {
    "an expression": ({"validations": [{"expression": "object.data.a == '1'"}]}, "failed expression: object.data.a == '1'"),
    "a message": ({"validations": [{"expression": "false", "message": "no"}]}, "no"),
    "a message expression": ({"validations": [{"expression": "false", "messageExpression": "'not ' + object.data.a"}]}, "not 2"),
    "a message expression that fails": ({"validations": [{"expression": "false", "message": "m", "messageExpression": "string(object.x.y)"}]}, "m"),
    "an expression that fails": ({"validations": [{"expression": "object.data.b == '1'"}]}, "expression 'object.data.b == '1'' resulted in error: no such key: b"),
    "an expression that fails and is ignored": ({"failurePolicy": "Ignore", "validations": [{"expression": "object.data.b == '1'"}]}, ""),
    "variables": (
        {"variables": [{"name": "x", "expression": "object.data.a"}, {"name": "y", "expression": "string(variables.x) + '!'"}],
         "validations": [{"expression": "variables.y == '1!'", "messageExpression": "variables.y"}]}, "2!",
    ),
    "a variable that fails": (
        {"variables": [{"name": "x", "expression": "object.data.b"}], "validations": [{"expression": "variables.x == ''"}]},
        "expression 'variables.x == ''' resulted in error: composited variable \"x\" fails to evaluate: no such key: b",
    ),
    "the request": ({"validations": [{"expression": "request.operation != 'CREATE' || request.userInfo.username != 'admin'"}]}, "failed expression: request.operation != 'CREATE' || request.userInfo.username != 'admin'"),
    "the namespace": ({"validations": [{"expression": "namespaceObject.metadata.name != 'default'", "message": "n"}]}, "n"),
    "what the user may do": ({"validations": [{"expression": "authorizer.requestResource.check('create').allowed() && authorizer.path('/x').check('get').allowed()"}]}, ""),
    "what an account may not do": ({"validations": [{"expression": "authorizer.serviceAccount('default', 'x').group('').resource('pods').namespace('default').check('list').allowed()", "message": "n"}]}, "n"),
    "a match condition about the user": ({"matchConditions": [{"name": "c", "expression": "!authorizer.group('').resource('nodes').check('delete').allowed()"}], "validations": [{"expression": "false"}]}, ""),
    "a named format": ({"validations": [{"expression": "!format.dns1123Label().validate(object.data.a + '.b').hasValue()", "messageExpression": "format.dns1123Label().validate('x.b').value().join(' ')"}]}, "must not contain dots"),
    "no old object": ({"validations": [{"expression": "oldObject != null", "message": "new"}]}, "new"),
    "a match condition that does not hold": ({"matchConditions": [{"name": "c", "expression": "object.data.a == '1'"}], "validations": [{"expression": "false"}]}, ""),
    "a match condition that fails": ({"matchConditions": [{"name": "c", "expression": "object.data.b == '1'"}], "validations": [{"expression": "false"}]}, "expression 'object.data.b == '1'' resulted in error: no such key: b"),
    "an excluded name": ({"matchConstraints": {"resourceRules": [RULE], "excludeResourceRules": [RULE | {"resourceNames": ["one"]}]}, "validations": [{"expression": "false"}]}, ""),
    "another object selector": ({"matchConstraints": {"resourceRules": [RULE], "objectSelector": {"matchLabels": {"app": "y"}}}, "validations": [{"expression": "false"}]}, ""),
}  # fmt: skip


@pytest.mark.parametrize("case", VALIDATIONS)
def test_a_policy_with(client: PlainClient, bind: Bind, case: str) -> None:
    spec, text = VALIDATIONS[case]
    answer = bind("validating", spec)
    assert answer.code == 201, answer.message
    answer = client("POST", PATH, configmap(a="2"))
    assert (answer.code, answer.message) == ((422, DENIED + text) if text else (201, ""))


@pytest.mark.parametrize(("reason", "code"), [("Forbidden", 403), ("Unauthorized", 401), ("Invalid", 422)])
def test_the_reason_decides_the_code(client: PlainClient, bind: Bind, reason: str, code: int) -> None:
    bind("validating", {"validations": [{"expression": "false", "reason": reason}]})
    answer = client("POST", PATH, configmap())
    assert (answer.code, answer.body["reason"]) == (code, reason)


def test_a_policy_may_only_warn(client: PlainClient, bind: Bind) -> None:
    bind(
        "validating",
        {"validations": [{"expression": "false", "message": "hm"}]},
        {"validationActions": ["Warn", "Audit"]},
    )
    answer = client("POST", PATH, configmap())
    assert answer.code == 201
    assert answer.warnings == ("Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': hm",)


def test_updates_and_deletions_are_checked(client: PlainClient, bind: Bind) -> None:
    client("POST", PATH, configmap(a="1"))
    bind(
        "validating",
        {"validations": [{"expression": "object != null && object.data == oldObject.data", "message": "fixed"}]},
    )
    changed = client("PATCH", f"{PATH}/one", {"data": {"a": "2"}}, kind="application/merge-patch+json")
    assert changed.message == DENIED + "fixed"
    assert client("DELETE", f"{PATH}/one").message == DENIED + "fixed"


PARAMS: dict[str, tuple[dict[str, Any], str]] = {
    "by name": ({"name": "limits", "parameterNotFoundAction": "Deny"}, "failed expression: object.data.a < params.data.max"),
    "by labels": ({"selector": {"matchLabels": {"app": "x"}}, "parameterNotFoundAction": "Deny"}, "failed expression: object.data.a < params.data.max"),
    "that are missing": ({"name": "gone", "parameterNotFoundAction": "Deny"}, "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"),
    "that may be missing": ({"name": "gone", "parameterNotFoundAction": "Allow"}, ""),
}  # fmt: skip


@pytest.mark.parametrize("case", PARAMS)
def test_parameters(client: PlainClient, bind: Bind, case: str) -> None:
    reference, text = PARAMS[case]
    client("POST", PATH, configmap("limits", max="5"))
    kind = {"apiVersion": "v1", "kind": "ConfigMap"}
    answer = bind(
        "validating",
        {"paramKind": kind, "validations": [{"expression": "object.data.a < params.data.max"}]},
        {"paramRef": reference},
    )
    assert answer.code == 201, answer.message
    answer = client("POST", PATH, configmap(a="7"))
    assert answer.message == (DENIED + text if text else "")


APPLY = "ApplyConfiguration"
MUTATIONS: dict[str, tuple[dict[str, Any], dict[str, str] | str]] = {
    "an apply configuration": ({"patchType": APPLY, "applyConfiguration": {"expression": "Object{data: {'b': '2'}}"}}, {"a": "1", "b": "2"}),
    "fields of the object": ({"patchType": APPLY, "applyConfiguration": {"expression": "Object{data: {'b': object.data.a + '!'}}"}}, {"a": "1", "b": "1!"}),
    "a JSON patch": ({"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 'add', path: '/data/b', value: '2'}]"}}, {"a": "1", "b": "2"}),
    "a JSON patch whose test fails": ({"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 'test', path: '/data/a', value: '2'}, JSONPatch{op: 'remove', path: '/data/a'}]"}}, {"a": "1"}),
    "an escaped key": ({"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 'add', path: '/data/' + jsonpatch.escapeKey('a~'), value: '2'}]"}}, "data[a~]"),
    "an expression that fails": ({"patchType": APPLY, "applyConfiguration": {"expression": "Object{data: {'b': object.data.c}}"}}, "policy 'p' with binding 'b' denied request: no such key: c"),
}  # fmt: skip


@pytest.mark.parametrize("case", MUTATIONS)
def test_a_mutation_by(client: PlainClient, bind: Bind, case: str) -> None:
    mutation, expected = MUTATIONS[case]
    answer = bind("mutating", {"mutations": [mutation], "reinvocationPolicy": "Never"})
    assert answer.code == 201, answer.message
    answer = client("POST", PATH, configmap(a="1"))
    if isinstance(expected, str):
        assert expected in answer.message
    else:
        assert answer.body["data"] == expected


def test_a_mutation_adds_a_container_by_its_name(client: PlainClient, bind: Bind) -> None:
    rule = {"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"], "operations": ["CREATE"]}
    text = "Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{containers: ["
    text += "Object.spec.template.spec.containers{name: 'mesh', image: 'proxy'}]}}}}"
    bind("mutating", {
        "matchConstraints": {"resourceRules": [rule]}, "reinvocationPolicy": "Never",
        "mutations": [{"patchType": APPLY, "applyConfiguration": {"expression": text}}],
    })  # fmt: skip
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    path = "/apis/apps/v1/namespaces/default/deployments"
    answer = client("POST", path, {"metadata": {"name": "d"}, "spec": spec})
    containers = answer.body["spec"]["template"]["spec"]["containers"]
    assert [container["name"] for container in containers] == ["c", "mesh"]
    # The defaults of the kind are filled in for what a policy adds.
    assert containers[1]["terminationMessagePath"] == "/dev/termination-log"
    client("DELETE", f"{path}/d")


SPEC = {"failurePolicy": "Fail", "matchConstraints": {"matchPolicy": "Equivalent", "resourceRules": [RULE]}}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no validations": ({}, "spec.validations: Required value: validations or auditAnnotations must contain at least one item"),
    "no constraints": ({"matchConstraints": None, "validations": [{"expression": "true"}]}, "spec.matchConstraints: Required value"),
    "no rules": ({"matchConstraints": {"matchPolicy": "Exact"}, "validations": [{"expression": "true"}]}, "spec.matchConstraints.resourceRules: Required value"),
    "a wrong expression": ({"validations": [{"expression": "x"}]}, "spec.validations[0].expression: Invalid value: \"x\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'x' (in container '')"),
    "no boolean": ({"validations": [{"expression": "1"}]}, 'spec.validations[0].expression: Invalid value: "1": must evaluate to bool but got int'),
    "no text": ({"validations": [{"expression": "true", "messageExpression": "1"}]}, 'spec.validations[0].messageExpression: Invalid value: "1": must evaluate to string but got int'),
    "a message that asks the authorizer": ({"validations": [{"expression": "true", "messageExpression": "authorizer.path('/x').check('get').reason()"}]}, "undeclared reference to 'authorizer'"),
    "an unknown variable": ({"validations": [{"expression": "variables.x == 1"}]}, "spec.validations[0].expression: Invalid value: \"variables.x == 1\": compilation failed: ERROR: <input>:1:10: undefined field 'x'"),
    "an unknown field of the request": ({"validations": [{"expression": "request.x == 1"}]}, "undefined field 'x'"),
    "parameters without a kind": ({"validations": [{"expression": "params.a"}]}, "undeclared reference to 'params"),
    "a wrong name of a variable": ({"variables": [{"name": "a-b", "expression": "1"}], "validations": [{"expression": "true"}]}, 'spec.variables[0].name: Invalid value: "a-b": name is not a valid CEL identifier'),
    "an unknown reason": ({"validations": [{"expression": "true", "reason": "X"}]}, 'spec.validations[0].reason: Unsupported value: "X": supported values: "Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"'),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_policy_is_refused_with(case: str) -> None:
    spec, text = WRONG[case]
    errors = policies.validate_validating({"metadata": {"name": "p"}, "spec": SPEC | spec})
    assert any(text in error.message() for error in errors), [error.message() for error in errors]


BINDINGS: dict[str, tuple[dict[str, Any], str]] = {
    "no actions": ({"validationActions": []}, "spec.validationActions: Required value: at least one validation action is required"),
    "Deny and Warn": ({"validationActions": ["Deny", "Warn"]}, "must not contain both Deny and Warn"),
    "no policy": ({"policyName": ""}, "spec.policyName: Required value"),
    "a parameter without a name": ({"paramRef": {"parameterNotFoundAction": "Deny"}}, "spec.paramRef: Required value: one of name or selector must be specified"),
    "a parameter without an action": ({"paramRef": {"name": "x"}}, "spec.paramRef.parameterNotFoundAction: Required value"),
}  # fmt: skip


@pytest.mark.parametrize("case", BINDINGS)
def test_a_binding_is_refused_with(case: str) -> None:
    spec, text = BINDINGS[case]
    errors = policies.validate_validating_binding(
        {"metadata": {}, "spec": {"policyName": "p", "validationActions": ["Deny"]} | spec}
    )
    assert [text in error.message() for error in errors] == [True]


INITIALIZERS = {
    "Object{}": "{}",
    "Object{spec: Object.spec{a: 1, ?b: optional.of(2)}}": '{"spec": {"a": 1, ?"b": optional.of(2)}}',
    "[JSONPatch{op: 'add', value: {'k': v}}]": "[{\"op\": 'add', \"value\": {'k': v}}]",
    "Object{a: x ? [1, b] : f(c, d)}": '{"a": x ? [1, b] : f(c, d)}',
    "'Object{a: 1}' + x": "'Object{a: 1}' + x",
}


@pytest.mark.parametrize("expression", INITIALIZERS)
def test_an_initializer_becomes_a_map(expression: str) -> None:
    assert as_maps(expression) == INITIALIZERS[expression]


@pytest.mark.parametrize(("expression", "asked"), [("object.data.a == '1'", True), ("object.data.a == '2'", False)])
def test_a_webhook_is_asked_when_its_conditions_hold(
    client: PlainClient, server: RunningApiServer, bind: Bind, expression: str, asked: bool
) -> None:
    with WebhookServer(server, name="conditional") as hooks:
        hooks.answers["/w"] = lambda request: {"allowed": True}
        webhook = {
            "name": "w.example.com", "clientConfig": hooks.client("/w"), "rules": [RULE], "sideEffects": "None",
            "admissionReviewVersions": ["v1"], "matchConditions": [{"name": "c", "expression": expression}],
        }  # fmt: skip
        path = f"{GROUP}/validatingwebhookconfigurations"
        assert client("POST", path, {"metadata": {"name": "w"}, "webhooks": [webhook]}).code == 201
        try:
            assert client("POST", PATH, configmap(a="1")).code == 201
        finally:
            client("DELETE", f"{path}/w")
        assert bool(hooks.asked) is asked


TYPED: dict[str, tuple[str, str, str]] = {
    "right types": ("object.spec.replicas > 1", "'has %d'.format([object.spec.replicas])", ""),
    "a wrong comparison": ("object.spec.replicas > '1'", "", "apps/v1, Kind=Deployment: compilation failed: ERROR: <input>:1:22: found no matching overload for '_>_' applied to '(int, string)'"),
    "a wrong message": ("true", "'got ' + object.spec.replicas", "apps/v1, Kind=Deployment: compilation failed: ERROR: <input>:1:8: found no matching overload for '_+_' applied to '(string, int)'"),
    "a field that is not there": ("object.spec.size > 1", "", "apps/v1, Kind=Deployment: compilation failed: ERROR: <input>:1:12: undefined field 'size'"),
    "a field in a list": ("object.spec.template.spec.containers.all(c, c.imagePullPolicy == 1)", "", "found no matching overload for '_==_' applied to '(string, int)'"),
}  # fmt: skip


@pytest.mark.parametrize("case", TYPED)
def test_the_status_warns_of(client: PlainClient, bind: Bind, case: str) -> None:
    expression, message, text = TYPED[case]
    rule = {"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"], "operations": ["CREATE"]}
    # A message that is not of type string is refused, so that the kind of the object decides here.
    validation = {"expression": expression} | ({"messageExpression": message} if message else {})
    answer = bind("validating", {"matchConstraints": {"resourceRules": [rule]}, "validations": [validation]})
    assert answer.code == 201, answer.message
    deadline = time.monotonic() + 20
    status: dict[str, Any] = {}
    while "typeChecking" not in status and time.monotonic() < deadline:
        status = client("GET", f"{GROUP}/validatingadmissionpolicies/p").body.get("status") or {}
    assert status["observedGeneration"] == 1
    warnings = status["typeChecking"].get("expressionWarnings") or []
    assert [text in warning["warning"] for warning in warnings] == ([True] if text else [])
