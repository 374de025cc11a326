"""APIServices of a Service: checked, shown in discovery, and asked in the name of the client."""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from kubewire.components.apiserver.http.aggregation import availability, documents, identity
from kubewire.components.apiserver.users import User
from tests.components.apiserver.plainclient import PlainClient
from tests.components.apiserver.running import RunningApiServer

API_SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
REFERENCE = {"namespace": "default", "name": "backend", "port": 443}
SERVICE = {"spec": {"type": "ClusterIP", "ports": [{"name": "https", "port": 443}]}}
PORTS = [{"name": "https", "port": 8443}]


def endpoints(*, ready: bool = True, ports: Any = PORTS) -> dict[str, Any]:
    return {"endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": ready}}], "ports": ports}


@pytest.mark.parametrize(
    ("service", "slices", "expected"),
    [
        pytest.param(None, [], ("ServiceNotFound", 'service/backend in "default" is not present'), id="no-service"),
        pytest.param(
            {"spec": {"ports": [{"port": 80}]}},
            [],
            ("ServicePortError", 'service/backend in "default" is not listening on port 443'),
            id="another-port",
        ),
        pytest.param(
            SERVICE,
            [],
            ("EndpointsNotFound", 'cannot find endpointslices for service/backend in "default"'),
            id="no-slices",
        ),
        pytest.param(
            SERVICE,
            [endpoints(ready=False), endpoints(ports=[{"name": "http", "port": 80}])],
            (
                "MissingEndpoints",
                'endpointslices for service/backend in "default" have no addresses with port name "https"',
            ),
            id="nothing-ready-on-the-port",
        ),
        pytest.param(SERVICE, [endpoints()], None, id="a-ready-endpoint-is-asked"),
        pytest.param({"spec": {"type": "ExternalName"}}, [], None, id="only-clusterips-have-endpoints"),
    ],
)
def test_what_the_objects_say_of_a_service(service: Any, slices: Any, expected: tuple[str, str] | None) -> None:
    found = availability.of_service(REFERENCE, service, slices)
    assert (found and (found.reason, found.message)) == expected


def test_a_condition_keeps_its_time_while_its_status_stays() -> None:
    first = availability.with_condition({}, availability.failed_check("a"), "1")
    second = availability.with_condition(first, availability.failed_check("b"), "2")
    third = availability.with_condition(second, availability.PASSED, "3")
    assert [availability.condition_of(item)["lastTransitionTime"] for item in (first, second, third)] == ["1", "1", "3"]  # type: ignore[index]
    assert availability.with_condition(third, availability.PASSED, "4") is third


def test_a_list_of_resources_becomes_aggregated_discovery() -> None:
    listed: list[dict[str, Any]] = [
        {"name": "flunders/status", "kind": "Flunder", "verbs": ["get"]},
        {"name": "flunders", "singularName": "flunder", "kind": "Flunder", "namespaced": True, "verbs": ["list"]},
    ]
    kind = {"group": "g", "version": "v1", "kind": "Flunder"}
    assert documents.discovered("g", "v1", listed) == (
        {
            "resource": "flunders",
            "responseKind": kind,
            "scope": "Namespaced",
            "singularResource": "flunder",
            "verbs": ["list"],
            "subresources": [{"subresource": "status", "responseKind": kind, "verbs": ["get"]}],
        },
    )


def test_a_client_cannot_say_that_it_is_somebody_else() -> None:
    user = User("ada", ("team", "system:authenticated"), "7", {"example.com/a": ("x", "y")})
    sent = {"X-Remote-User": "root", "Impersonate-User": "root", "Authorization": "Bearer t", "Accept": "*/*"}
    got = identity.sent_on(sent, user, "10.0.0.9")
    assert sorted(got.items()) == [
        ("Accept", "*/*"),
        ("X-Forwarded-For", "10.0.0.9"),
        ("X-Remote-Extra-example.com%2Fa", "x"),
        ("X-Remote-Extra-example.com%2Fa", "y"),
        ("X-Remote-Group", "system:authenticated"),
        ("X-Remote-Group", "team"),
        ("X-Remote-Uid", "7"),
        ("X-Remote-User", "ada"),
    ]


GROUP = "wardle.example.com"
FLUNDERS = {"name": "flunders", "singularName": "flunder", "kind": "Flunder", "namespaced": True, "verbs": ["list"]}


class Extension:
    """A server behind the aggregation layer, at NAME.default.svc by its certificate."""

    def __init__(self, api: RunningApiServer, name: str) -> None:
        self.asked: list[tuple[str, str, str]] = []
        issued = api.authority.issue(name, hosts=(f"{name}.default.svc",))
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(api.authority.certificate))
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(issued.certificate, issued.key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                certificate: Any = self.connection.getpeercert()
                shown = dict(pair for part in certificate["subject"] for pair in part)["commonName"]
                outer.asked.append((self.path, self.headers["X-Remote-User"], shown))
                listed = {"kind": "APIResourceList", "resources": [FLUNDERS]}
                body = json.dumps(listed if self.path.count("/") == 3 else {"kind": "FlunderList", "items": []})
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                # In two pieces, as large documents arrive.
                self.wfile.write(body[:20].encode())
                self.wfile.flush()
                self.wfile.write(body[20:].encode())

            def log_message(self, format: str, *args: object) -> None:
                return None

        return Handler


@pytest.fixture(scope="module")
def client(server: RunningApiServer) -> PlainClient:
    return PlainClient(server)


Register = Callable[..., Extension]


@pytest.fixture
def register(server: RunningApiServer, client: PlainClient) -> Iterator[Register]:
    """register("name", group): a server behind a Service of this name, and its APIService."""
    running: list[tuple[Extension, str, str]] = []

    def act(name: str, group: str = GROUP, version: str = "v1", **spec: Any) -> Extension:
        extension = Extension(server, name)
        threading.Thread(target=extension.server.serve_forever, daemon=True).start()
        running.append((extension, name, f"{version}.{group}"))
        service = {"metadata": {"name": name}, "spec": {"type": "ExternalName", "externalName": "localhost"}}
        assert client("POST", "/api/v1/namespaces/default/services", service).code == 201
        bundle = base64.b64encode(server.authority.certificate.read_bytes()).decode()
        trust = spec or {"caBundle": bundle}
        body = {
            "metadata": {"name": f"{version}.{group}"},
            "spec": {
                "group": group,
                "version": version,
                "groupPriorityMinimum": 1500,
                "versionPriority": 10,
                "service": {"namespace": "default", "name": name, "port": extension.port},
                **trust,
            },
        }
        client("DELETE", f"{API_SERVICES}/{version}.{group}")
        assert client("POST", API_SERVICES, body).code == 201
        return extension

    yield act
    for extension, name, api_service in running:
        client("DELETE", f"{API_SERVICES}/{api_service}")
        client("DELETE", f"/api/v1/namespaces/default/services/{name}")
        extension.server.shutdown()
        extension.server.server_close()


def until(client: PlainClient, name: str, reason: str) -> dict[str, Any]:
    """The condition Available, once it has this reason."""
    deadline = time.monotonic() + 20
    while True:
        condition = availability.condition_of(client("GET", f"{API_SERVICES}/{name}").body) or {}
        if condition.get("reason") == reason:
            return condition
        assert time.monotonic() < deadline, condition


def groups(client: PlainClient) -> list[str]:
    return [item["name"] for item in client("GET", "/apis").body["groups"]]


@pytest.mark.parametrize("trust", [{}, {"insecureSkipTLSVerify": True}], ids=["caBundle", "not-verified"])
def test_requests_reach_the_server_behind_as_the_clients(
    client: PlainClient, register: Register, trust: dict[str, Any]
) -> None:
    extension = register("wardle", **trust)
    until(client, f"v1.{GROUP}", "Passed")
    path = f"/apis/{GROUP}/v1/namespaces/default/flunders"
    answer = client("GET", f"{path}?labelSelector=a%3Db")
    assert (answer.code, answer.body["kind"]) == (200, "FlunderList")
    assert extension.asked[-1] == (f"{path}?labelSelector=a%3Db", "admin", "front-proxy-client")
    assert (f"/apis/{GROUP}/v1", "system:kube-aggregator", "front-proxy-client") in extension.asked


def test_discovery_has_what_the_server_behind_says(client: PlainClient, register: Register) -> None:
    register("wardle")
    until(client, f"v1.{GROUP}", "Passed")
    assert GROUP in groups(client)
    assert client("GET", f"/apis/{GROUP}").body["preferredVersion"]["version"] == "v1"
    assert client("GET", f"/apis/{GROUP}/v1").body["resources"] == [FLUNDERS]
    client("DELETE", f"{API_SERVICES}/v1.{GROUP}")
    assert GROUP not in groups(client)
    assert client("GET", f"/apis/{GROUP}/v1").code == 404


def test_kubectl_finds_the_resource_by_aggregated_discovery(
    client: PlainClient, register: Register, kubectl: Any
) -> None:
    register("wardle")
    until(client, f"v1.{GROUP}", "Passed")
    listed = kubectl("api-resources", f"--api-group={GROUP}", "--no-headers").stdout.split()
    assert listed == ["flunders", f"{GROUP}/v1", "true", "Flunder"]


def test_a_certificate_of_nobody_it_trusts_is_refused(client: PlainClient, register: Register) -> None:
    register("wardle", insecureSkipTLSVerify=False)
    until(client, f"v1.{GROUP}", "Passed")
    answer = client("GET", f"/apis/{GROUP}/v1/flunders")
    assert answer.code == 503
    assert answer.body["text"].startswith("error trying to reach service: tls: failed to verify certificate")


def test_a_server_that_does_not_answer_is_unavailable(client: PlainClient, register: Register) -> None:
    extension = register("wardle")
    until(client, f"v1.{GROUP}", "Passed")
    extension.server.shutdown()
    extension.server.server_close()
    update = client("GET", f"{API_SERVICES}/v1.{GROUP}").body
    update["spec"]["versionPriority"] = 11
    client("PUT", f"{API_SERVICES}/v1.{GROUP}", update)
    condition = until(client, f"v1.{GROUP}", "FailedDiscoveryCheck")
    assert condition["status"] == "False"
    url = f"https://localhost:{extension.port}/apis/{GROUP}/v1"
    assert condition["message"].startswith(f'failing or missing response from {url}: Get "{url}": dial tcp')
    answer = client("GET", f"/apis/{GROUP}/v1/flunders")
    assert (answer.code, answer.body) == (503, {"text": "service unavailable\n"})


def test_metrics_are_the_servers_own_unless_an_api_service_says_otherwise(
    client: PlainClient, register: Register
) -> None:
    path = "/apis/metrics.k8s.io/v1beta1/nodes"
    assert client("GET", path).body["kind"] == "NodeMetricsList"
    register("metrics-server", "metrics.k8s.io", "v1beta1")
    until(client, "v1beta1.metrics.k8s.io", "Passed")
    assert client("GET", path).body["kind"] == "FlunderList"
    client("DELETE", f"{API_SERVICES}/v1beta1.metrics.k8s.io")
    assert client("GET", path).body["kind"] == "NodeMetricsList"


def test_groups_of_custom_resources_have_local_api_services(client: PlainClient) -> None:
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    names = {"plural": "crumbs", "singular": "crumb", "kind": "Crumb", "listKind": "CrumbList"}
    schema = {"openAPIV3Schema": {"type": "object"}}
    spec = {
        "group": "bread.example.com",
        "names": names,
        "scope": "Namespaced",
        "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
    }
    body = {"metadata": {"name": "crumbs.bread.example.com"}, "spec": spec}
    assert client("POST", definitions, body).code == 201
    made = client("GET", f"{API_SERVICES}/v1.bread.example.com").body
    assert (made["spec"]["groupPriorityMinimum"], made["spec"]["versionPriority"]) == (1000, 100)
    assert until(client, "v1.bread.example.com", "Local")["status"] == "True"
    client("DELETE", f"{API_SERVICES}/v1.bread.example.com")
    assert client("GET", f"{API_SERVICES}/v1.bread.example.com").code == 200
    client("DELETE", f"{definitions}/crumbs.bread.example.com")
    assert client("GET", f"{API_SERVICES}/v1.bread.example.com").code == 404


def test_servers_behind_find_how_to_check_who_calls_them(client: PlainClient) -> None:
    path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
    data = client("GET", path).body["data"]
    assert data["requestheader-client-ca-file"].startswith("-----BEGIN CERTIFICATE-----")
    assert {key: value for key, value in data.items() if not key.endswith("-ca-file")} == {
        "requestheader-allowed-names": '["front-proxy-client"]',
        "requestheader-extra-headers-prefix": '["X-Remote-Extra-"]',
        "requestheader-group-headers": '["X-Remote-Group"]',
        "requestheader-uid-headers": "[]",
        "requestheader-username-headers": '["X-Remote-User"]',
    }
