"""Admission webhooks are asked over HTTPS, and change and refuse requests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kubewire.components.apiserver.registry.admission.webhooks.rules import Resource, first_match, matches
from tests.components.apiserver.plainclient import PlainClient
from tests.components.apiserver.running import RunningApiServer
from tests.components.apiserver.webhooks import WebhookServer, patch

CONFIGMAPS = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["*"]}
PATH = "/api/v1/namespaces/default/configmaps"
GROUP = "/apis/admissionregistration.k8s.io/v1"
KINDS = {"mutating": "MutatingWebhookConfiguration", "validating": "ValidatingWebhookConfiguration"}


@pytest.fixture(scope="module")
def client(server: RunningApiServer) -> PlainClient:
    return PlainClient(server)


@pytest.fixture(scope="module")
def hooks(server: RunningApiServer) -> Iterator[WebhookServer]:
    with WebhookServer(server) as running:
        yield running


Configure = Callable[..., None]


@pytest.fixture
def configure(client: PlainClient, hooks: WebhookServer) -> Iterator[Configure]:
    """configure("mutating", "name", {...}): a configuration with these webhooks, gone after the test."""
    made: list[str] = []
    hooks.asked.clear()
    hooks.answers.clear()

    def act(kind: str, name: str, *webhooks: dict[str, Any]) -> None:
        path = f"{GROUP}/{kind}webhookconfigurations"
        listed = [
            {
                "name": f"{name}-{number}.example.com" if number else f"{name}.example.com",
                "clientConfig": hooks.client(f"/{name}"),
                "rules": [CONFIGMAPS],
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
                **webhook,
            }
            for number, webhook in enumerate(webhooks or ({},))
        ]
        answer = client("POST", path, {"metadata": {"name": name}, "webhooks": listed})
        assert answer.code == 201, answer.message
        made.append(f"{path}/{name}")

    yield act
    for path in made:
        client("DELETE", path)
    for item in client("GET", PATH).body["items"]:
        client("DELETE", f"{PATH}/{item['metadata']['name']}")


def configmap(name: str, **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name} | more.pop("metadata", {}), "data": {"a": "1"}, **more}


def add(key: str, value: str) -> Callable[[Any], dict[str, Any]]:
    return lambda request: patch({"op": "add", "path": f"/data/{key}", "value": value})


def allow(request: Any) -> dict[str, Any]:
    return {"allowed": True}


def test_a_mutating_webhook_changes_what_is_stored(
    client: PlainClient, hooks: WebhookServer, configure: Configure
) -> None:
    hooks.answers["/m"] = add("b", "2")
    configure("mutating", "m")
    assert client("POST", PATH, configmap("one")).body["data"] == {"a": "1", "b": "2"}
    assert client("GET", f"{PATH}/one").body["data"] == {"a": "1", "b": "2"}


def test_the_review_says_who_does_what(client: PlainClient, hooks: WebhookServer, configure: Configure) -> None:
    hooks.answers["/m"] = allow
    configure("mutating", "m")
    client("POST", PATH, configmap("one"))
    client("PUT", f"{PATH}/one?fieldManager=me", configmap("one", data={"a": "2"}))
    client("DELETE", f"{PATH}/one")
    created, updated, deleted = hooks.requests("/m")
    kind = {"group": "", "version": "v1", "kind": "ConfigMap"}
    resource = {"group": "", "version": "v1", "resource": "configmaps"}
    assert created["operation"] == "CREATE" and created["oldObject"] is None
    assert (created["kind"], created["requestKind"]) == (kind, kind)
    assert (created["resource"], created["requestResource"]) == (resource, resource)
    assert (created["name"], created["namespace"], created["dryRun"]) == ("one", "default", False)
    assert created["userInfo"]["username"] == "admin" and "system:masters" in created["userInfo"]["groups"]
    assert created["options"]["kind"] == "CreateOptions"
    # The registry sets these after admission.
    assert not created["object"]["metadata"].keys() & {"uid", "generation", "resourceVersion"}
    assert updated["object"]["data"] == {"a": "2"} and updated["oldObject"]["data"] == {"a": "1"}
    assert updated["options"] == {
        "kind": "UpdateOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": "me", "fieldValidation": "Warn",
    }  # fmt: skip
    assert deleted["object"] is None and deleted["oldObject"]["data"] == {"a": "2"}
    assert deleted["options"]["kind"] == "DeleteOptions"


def test_a_made_up_name_is_not_part_of_the_request(
    client: PlainClient, hooks: WebhookServer, configure: Configure
) -> None:
    hooks.answers["/m"] = allow
    configure("mutating", "m")
    answer = client("POST", PATH, {"metadata": {"generateName": "some-"}})
    assert answer.body["metadata"]["name"].startswith("some-")
    (request,) = hooks.requests("/m")
    assert "name" not in request and "name" not in request["object"]["metadata"]


REFUSALS: dict[str, tuple[dict[str, Any], int, str]] = {
    "with a message": ({"status": {"message": "no"}}, 400, ': no'),
    "with a code": ({"status": {"code": 403, "message": "not you"}}, 403, ': not you'),
    "with a reason": ({"status": {"code": 409, "reason": "Conflict"}}, 409, ': Conflict'),
    "without explanation": ({}, 400, ' without explanation'),
    "never with success": ({"status": {"code": 200, "status": "Success"}}, 400, ' without explanation'),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_webhook_refuses(
    client: PlainClient, hooks: WebhookServer, configure: Configure, kind: str, case: str
) -> None:
    response, code, text = REFUSALS[case]
    hooks.answers["/w"] = lambda request: {"allowed": False} | response
    configure(kind, "w")
    answer = client("POST", PATH, configmap("one"))
    assert (answer.code, answer.message) == (code, f'admission webhook "w.example.com" denied the request{text}')
    assert client("GET", f"{PATH}/one").code == 404


FAILURES: dict[str, tuple[str, dict[str, Any], str]] = {
    "that says nothing": ("mutating", {"http": 500}, "failed to call webhook: an error on the server"),
    "with another uid": ("mutating", {"uid": "x"}, 'received invalid webhook response: expected response.uid="'),
    "with a patch and no type": ("mutating", {"patch": "W10="}, "received invalid webhook response: webhook returned response.patch but not response.patchType"),
    "with a patch that is none": ("mutating", {"patch": "e30=", "patchType": "JSONPatch"}, "received undecodable patch in webhook response: json: cannot unmarshal"),
    "with a patch of another type": ("mutating", patch({}) | {"patchType": "Merge"}, 'unsupported patch type "Merge"'),
    "with a patch that may not be": ("validating", patch(), "received invalid webhook response: validating webhook may not return response.patch"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAILURES)
@pytest.mark.parametrize("policy", ["Fail", "Ignore"])
def test_an_answer(client: PlainClient, hooks: WebhookServer, configure: Configure, case: str, policy: str) -> None:
    kind, response, text = FAILURES[case]
    hooks.answers["/w"] = lambda request: {"allowed": True} | response
    configure(kind, "w", {"failurePolicy": policy})
    answer = client("POST", PATH, configmap("one"))
    if policy == "Ignore":
        assert answer.code == 201
        return
    assert answer.code == 500
    assert answer.message.startswith(f'Internal error occurred: failed calling webhook "w.example.com": {text}')


UNREACHABLE: dict[str, tuple[dict[str, Any], str]] = {
    "a Service that is not there": (
        {"service": {"name": "gone", "namespace": "default", "path": "/x"}},
        'failed to call webhook: Post "https://gone.default.svc:443/x?timeout=10s": service "gone" not found',
    ),
    "a Service without that port": (
        {"service": {"name": "kubernetes", "namespace": "default", "port": 1}},
        'failed to call webhook: Post "https://kubernetes.default.svc:1/?timeout=10s": no service port 1 found for service "kubernetes"',
    ),
    "a port where nobody listens": (
        {"url": "https://127.0.0.1:1/x"},
        'failed to call webhook: Post "https://127.0.0.1:1/x?timeout=10s": dial tcp 127.0.0.1:1: connect: connection refused',
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", UNREACHABLE)
def test_a_webhook_cannot_be_reached(client: PlainClient, configure: Configure, case: str) -> None:
    config, text = UNREACHABLE[case]
    configure("validating", "w", {"clientConfig": config})
    answer = client("POST", PATH, configmap("one"))
    assert (answer.code, answer.message) == (
        500,
        f'Internal error occurred: failed calling webhook "w.example.com": {text}',
    )


def test_a_certificate_must_be_of_the_bundle(client: PlainClient, hooks: WebhookServer, configure: Configure) -> None:
    configure("validating", "w", {"clientConfig": {"url": f"{hooks.url}/w"}})
    text = "tls: failed to verify certificate: x509: certificate signed by unknown authority"
    assert client("POST", PATH, configmap("one")).message.endswith(text)


def test_a_webhook_that_does_not_answer_in_time(
    client: PlainClient, hooks: WebhookServer, configure: Configure
) -> None:
    release = threading.Event()

    def late(request: Any) -> dict[str, Any]:
        release.wait(20)
        return {"allowed": True}

    hooks.answers["/w"] = late
    configure("validating", "w", {"timeoutSeconds": 1})
    try:
        assert client("POST", PATH, configmap("one")).message.endswith('?timeout=1s": context deadline exceeded')
    finally:
        release.set()


def test_warnings_reach_the_client(client: PlainClient, hooks: WebhookServer, configure: Configure) -> None:
    hooks.answers["/w"] = lambda request: {"allowed": True, "warnings": ["careful"]}
    configure("validating", "w")
    assert client("POST", PATH, configmap("one")).warnings == ("careful",)
    assert client("DELETE", f"{PATH}/one").warnings == ("careful",)


def test_webhooks_are_asked_in_the_order_of_names_and_see_earlier_changes(
    client: PlainClient, hooks: WebhookServer, configure: Configure
) -> None:
    hooks.answers["/b"] = add("order", "b")
    hooks.answers["/a"] = add("order", "a")
    configure("mutating", "b")
    configure("mutating", "a")
    assert client("POST", PATH, configmap("one")).body["data"]["order"] == "b"
    assert [path for path, _ in hooks.asked] == ["/a", "/b"]
    assert hooks.requests("/b")[0]["object"]["data"]["order"] == "a"


@pytest.mark.parametrize(("policy", "times"), [("Never", 1), ("IfNeeded", 2)])
def test_a_webhook_is_asked_again_when_a_later_one_changed_the_object(
    client: PlainClient, hooks: WebhookServer, configure: Configure, policy: str, times: int
) -> None:
    hooks.answers["/a"] = allow
    hooks.answers["/b"] = add("b", "2")
    configure("mutating", "a", {"reinvocationPolicy": policy})
    configure("mutating", "b")
    client("POST", PATH, configmap("one"))
    assert [path for path, _ in hooks.asked] == ["/a", "/b", "/a"][: times + 1]


@pytest.mark.parametrize("effects", ["None", "NoneOnDryRun", "Some"])
def test_a_dry_run_asks_only_webhooks_without_side_effects(
    client: PlainClient, hooks: WebhookServer, configure: Configure, effects: str
) -> None:
    hooks.answers["/w"] = allow
    configure("mutating", "w", {"sideEffects": effects if effects != "Some" else "NoneOnDryRun"})
    answer = client("POST", f"{PATH}?dryRun=All", configmap("one"))
    assert answer.code == 201 and hooks.requests("/w")[0]["dryRun"] is True


@pytest.mark.parametrize("case", ["namespaceSelector", "objectSelector", "rules"])
def test_a_request_that_does_not_match_is_not_shown(
    client: PlainClient, hooks: WebhookServer, configure: Configure, case: str
) -> None:
    hooks.answers["/w"] = add("b", "2")
    other: dict[str, Any] = {"matchLabels": {"kubernetes.io/metadata.name": "other"}}
    configure("mutating", "w", {case: [CONFIGMAPS | {"operations": ["DELETE"]}] if case == "rules" else other})
    assert client("POST", PATH, configmap("one")).code == 201
    assert not hooks.asked


def test_configurations_themselves_are_not_shown(
    client: PlainClient, hooks: WebhookServer, configure: Configure
) -> None:
    everything = {"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"], "operations": ["*"]}
    hooks.answers["/w"] = lambda request: {"allowed": False}
    configure("validating", "w", {"rules": [everything]})
    hooks.answers["/other"] = allow
    configure("mutating", "other")
    assert client("POST", PATH, configmap("one")).code == 400


def test_a_lost_race_asks_again_and_loses_nothing(
    client: PlainClient, hooks: WebhookServer, configure: Configure
) -> None:
    client("POST", PATH, configmap("one"))
    once = threading.Event()

    def overtaken(request: Any) -> dict[str, Any]:
        if not once.is_set():
            once.set()
            other = {"data": {"other": "1"}}
            answer = client("PATCH", f"{PATH}/one", other, kind="application/merge-patch+json")
            assert answer.code == 200
        return patch({"op": "add", "path": "/data/hook", "value": "1"})

    hooks.answers["/w"] = overtaken
    configure("mutating", "w")
    client("PATCH", f"{PATH}/one", {"data": {"mine": "1"}}, kind="application/merge-patch+json")
    assert client("GET", f"{PATH}/one").body["data"] == {"a": "1", "mine": "1", "other": "1", "hook": "1"}
    assert len(hooks.asked) == 3


def test_a_full_update_that_is_overtaken_is_a_conflict(
    client: PlainClient, hooks: WebhookServer, configure: Configure
) -> None:
    current = client("POST", PATH, configmap("one")).body
    once = threading.Event()

    def overtaken(request: Any) -> dict[str, Any]:
        if not once.is_set():
            once.set()
            client("PATCH", f"{PATH}/one", {"data": {"other": "1"}}, kind="application/merge-patch+json")
        return {"allowed": True}

    hooks.answers["/w"] = overtaken
    configure("validating", "w")
    answer = client("PUT", f"{PATH}/one", current | {"data": {"mine": "1"}})
    assert answer.code == 409


def test_many_requests_can_wait_for_webhooks_at_a_time(
    client: PlainClient, hooks: WebhookServer, configure: Configure
) -> None:
    together = threading.Barrier(12, timeout=20)

    def meet(request: Any) -> dict[str, Any]:
        together.wait()
        return {"allowed": True}

    hooks.answers["/w"] = meet
    configure("validating", "w")
    threads = [threading.Thread(target=client, args=("POST", PATH, configmap(f"c{number}"))) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not together.broken and len(client("GET", PATH).body["items"]) >= 12


def test_what_a_webhook_makes_must_be_of_the_kind(
    client: PlainClient, hooks: WebhookServer, configure: Configure
) -> None:
    hooks.answers["/w"] = lambda request: patch({"op": "replace", "path": "/data", "value": "text"})
    configure("mutating", "w")
    assert client("POST", PATH, configmap("one")).code == 500


def test_the_kinds_own_checks_come_after_mutation(
    client: PlainClient, hooks: WebhookServer, configure: Configure
) -> None:
    hooks.answers["/w"] = lambda request: patch({"op": "add", "path": "/data/a~1b", "value": "1"})
    configure("mutating", "w")
    answer = client("POST", PATH, configmap("one"))
    assert answer.code == 422 and "data[a/b]" in answer.message


def test_a_scale_is_shown_as_scale(client: PlainClient, hooks: WebhookServer, configure: Configure) -> None:
    spec = {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
    }
    path = "/apis/apps/v1/namespaces/default/deployments"
    client("POST", path, {"metadata": {"name": "d"}, "spec": spec})
    rule = {"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments/scale"], "operations": ["UPDATE"]}
    hooks.answers["/w"] = lambda request: patch({"op": "replace", "path": "/spec/replicas", "value": 7})
    configure("mutating", "w", {"rules": [rule]})
    answer = client("PATCH", f"{path}/d/scale", {"spec": {"replicas": 3}}, kind="application/merge-patch+json")
    assert answer.body["spec"]["replicas"] == 7
    (request,) = hooks.requests("/w")
    assert request["kind"] == {"group": "autoscaling", "version": "v1", "kind": "Scale"}
    assert (request["subResource"], request["object"]["spec"]["replicas"]) == ("scale", 3)
    client("DELETE", f"{path}/d")


def test_exec_is_a_connection(client: PlainClient, hooks: WebhookServer, configure: Configure) -> None:
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods/exec"], "operations": ["CONNECT"]}
    hooks.answers["/w"] = lambda request: {"allowed": False}
    configure("validating", "w", {"rules": [rule]})
    answer = client("POST", "/api/v1/namespaces/default/pods/p/exec?command=a&command=b&stdin=true")
    assert answer.code == 400 and "denied the request" in answer.message
    (request,) = hooks.requests("/w")
    assert (request["operation"], request["name"]) == ("CONNECT", "p")
    assert request["object"] == {"kind": "PodExecOptions", "apiVersion": "v1", "stdin": True, "command": ["a", "b"]}


RULE = {"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"], "operations": ["CREATE"]}
DEPLOYMENTS = Resource("apps", "v1", "deployments")
MATCHES: dict[str, tuple[dict[str, Any], Resource, str, str, bool]] = {
    "the named resource": ({}, DEPLOYMENTS, "CREATE", "n", True),
    "not another operation": ({}, DEPLOYMENTS, "UPDATE", "n", False),
    "any operation": ({"operations": ["*"]}, DEPLOYMENTS, "UPDATE", "n", True),
    "not a subresource": ({}, Resource("apps", "v1", "deployments", "scale"), "CREATE", "n", False),
    "every resource, no subresource": ({"resources": ["*"]}, Resource("apps", "v1", "deployments", "scale"), "CREATE", "n", False),
    "every subresource of one": ({"resources": ["deployments/*"]}, Resource("apps", "v1", "deployments", "scale"), "CREATE", "n", True),
    "one subresource of all": ({"resources": ["*/scale"]}, Resource("apps", "v1", "deployments", "scale"), "CREATE", "n", True),
    "everything": ({"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}, Resource("x", "v9", "ys", "z"), "CREATE", "", True),
    "not another version": ({"apiVersions": ["v1beta1"]}, DEPLOYMENTS, "CREATE", "n", False),
    "namespaced objects": ({"scope": "Namespaced"}, DEPLOYMENTS, "CREATE", "n", True),
    "cluster-scoped objects": ({"scope": "Cluster"}, DEPLOYMENTS, "CREATE", "n", False),
    "a namespace is cluster-scoped": (
        {"scope": "Cluster", "apiGroups": [""], "resources": ["namespaces"]}, Resource("", "v1", "namespaces"), "CREATE", "n", True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MATCHES)
def test_a_rule_names(case: str) -> None:
    change, resource, operation, namespace, expected = MATCHES[case]
    assert matches(RULE | change, resource, operation, namespace) is expected


@pytest.mark.parametrize(("policy", "shown"), [("Exact", None), ("Equivalent", DEPLOYMENTS)])
def test_an_equivalent_resource_is_shown_as_the_rule_names_it(policy: str, shown: Resource | None) -> None:
    asked = Resource("apps", "v1beta1", "deployments")
    assert first_match([RULE], asked, [asked, DEPLOYMENTS], policy, "CREATE", "n") == shown


HOOK: dict[str, Any] = {
    "name": "a.example.com",
    "clientConfig": {"url": "https://a.example.com/x"},
    "rules": [CONFIGMAPS],
    "sideEffects": "None",
    "admissionReviewVersions": ["v1"],
}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a short name": ({"name": "a.b"}, "webhooks[0].name: Invalid value: \"a.b\": should be a domain with at least three segments separated by dots"),
    "no side effects": ({"sideEffects": None}, "webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun"),
    "other side effects": ({"sideEffects": "Some"}, 'webhooks[0].sideEffects: Unsupported value: "Some": supported values: "None", "NoneOnDryRun"'),
    "no versions": ({"admissionReviewVersions": []}, "webhooks[0].admissionReviewVersions: Required value: must specify one of v1, v1beta1"),
    "only unknown versions": ({"admissionReviewVersions": ["v2"]}, 'webhooks[0].admissionReviewVersions: Invalid value: ["v2"]: must include at least one of v1, v1beta1'),
    "a long time-out": ({"timeoutSeconds": 31}, "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds"),
    "two ways to it": ({"clientConfig": {}}, "webhooks[0].clientConfig: Required value: exactly one of url or service is required"),
    "plain HTTP": ({"clientConfig": {"url": "http://a/x"}}, "webhooks[0].clientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]"),
    "a Service without a name": ({"clientConfig": {"service": {"namespace": "n"}}}, "webhooks[0].clientConfig.service.name: Required value: service name is required"),
    "an unknown operation": ({"rules": [CONFIGMAPS | {"operations": ["GET"]}]}, 'webhooks[0].rules[0].operations[0]: Unsupported value: "GET": supported values: "*", "CONNECT", "CREATE", "DELETE", "UPDATE"'),
    "all groups and more": ({"rules": [CONFIGMAPS | {"apiGroups": ["*", "apps"]}]}, "webhooks[0].rules[0].apiGroups: Invalid value: [\"*\",\"apps\"]: if '*' is present, must not specify other API groups"),
    "no resources": ({"rules": [CONFIGMAPS | {"resources": []}]}, "webhooks[0].rules[0].resources: Required value"),
    "a resource twice": ({"rules": [CONFIGMAPS | {"resources": ["pods/*", "pods/log"]}]}, "webhooks[0].rules[0].resources[1]: Invalid value: \"pods/log\": if 'pods/*' is present, must not specify pods/log"),
    "an unknown policy": ({"failurePolicy": "Maybe"}, 'webhooks[0].failurePolicy: Unsupported value: "Maybe": supported values: "Fail", "Ignore"'),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_configuration_is_refused_with(client: PlainClient, case: str) -> None:
    change, text = WRONG[case]
    path = f"{GROUP}/validatingwebhookconfigurations"
    answer = client("POST", path, {"metadata": {"name": "wrong"}, "webhooks": [HOOK | change]})
    prefix = 'ValidatingWebhookConfiguration.admissionregistration.k8s.io "wrong" is invalid: '
    assert (answer.code, answer.message) == (422, prefix + text)
