"""Requests that are too much: each is answered at once or beside the others, and never takes the server along."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import socket
import ssl
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubewire.components.apiserver import bodies
from kubewire.components.apiserver.crd import structural
from kubewire.components.apiserver.store import Key
from tests.components.apiserver.running import RunningApiServer
from tests.fuzz.apiserver.in_process import Answer, InProcess, in_process, request_of

JSON, YAML, APPLY = "application/json", "application/yaml", "application/apply-patch+yaml"
JSON_PATCH, STRATEGIC = "application/json-patch+json", "application/strategic-merge-patch+json"
NAMESPACE = "/api/v1/namespaces/default"
CONFIGMAPS = f"{NAMESPACE}/configmaps"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
GADGETS = "/apis/example.org/v1/namespaces/default/gadgets"

#: Seconds of CPU time for which one request may keep the event loop from the others.
LONGEST_TURN = 0.1


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with in_process(tmp_path_factory.mktemp("apiserver")) as running:
        assert running.create(f"{NAMESPACE}/serviceaccounts", {"metadata": {"name": "default"}}).code == 201
        assert running.create(CONFIGMAPS, {"metadata": {"name": "grown"}, "data": {"a": "b"}}).code == 201
        assert running.create(DEFINITIONS, definition({"word": {"type": "string", "pattern": "^(a+)+$"}})).code == 201
        yield running


def definition(properties: dict[str, Any], plural: str = "gadgets") -> dict[str, Any]:
    schema = {"type": "object", "properties": properties}
    return {
        "metadata": {"name": f"{plural}.example.org"},
        "spec": {
            "group": "example.org",
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": plural.capitalize()},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }


def send(api: InProcess, method: str, path: str, kind: str, body: bytes) -> Answer:
    return api(method, path, body, Content_Type=kind)


def items(text: str, number: int, field: str = "finalizers") -> bytes:
    listed = ",".join([text] * number)
    return f'{{"metadata":{{"name":"many","{field}":[{listed}]}}}}'.encode()


def yaml_bomb() -> bytes:
    """Nine levels of nine: 400 bytes that stand for 400 million values."""
    first = b"kind: ConfigMap\nmetadata: {name: bomb}\na: &a [x,x,x,x,x,x,x,x,x]\n"
    return first + b"".join(
        b"%c: &%c [%b]\n" % (one + 1, one + 1, b",".join([b"*%c" % one] * 9)) for one in range(97, 106)
    )


def doubling(number: int) -> bytes:
    operations = [{"op": "copy", "from": "/data", "path": f"/data/x{index}"} for index in range(number)]
    return json.dumps(operations).encode()


def additions(number: int) -> bytes:
    return json.dumps([{"op": "add", "path": f"/data/k{index}", "value": "v"} for index in range(number)]).encode()


def named(field: str, number: int, **more: Any) -> bytes:
    return json.dumps({field: [{"name": str(index)} for index in range(number)]} | more).encode()


TOO_MUCH: dict[str, tuple[str, str, str, bytes, int, str]] = {
    "900,000 list items": (
        "POST", CONFIGMAPS, JSON, items('""', 900_000), 413, "Request entity too large: limit is 100000 values",
    ),
    "a million of YAML": (
        "POST", CONFIGMAPS, YAML, b"- \n" * 1_000_000, 413, "Request entity too large: limit is 100000 values",
    ),
    "nested YAML aliases": (
        "POST", CONFIGMAPS, YAML, yaml_bomb(), 400, "yaml: document contains excessive aliasing",
    ),
    "nested YAML aliases applied": (
        "PATCH", f"{CONFIGMAPS}/a?fieldManager=m", APPLY, yaml_bomb(), 400, "yaml: document contains excessive aliasing",
    ),
    "an alias of what it stands in": (
        "POST", CONFIGMAPS, YAML, b"a: &a [*a]", 400, "yaml: anchor 'a' value contains itself",
    ),
    "deep JSON": ("POST", CONFIGMAPS, JSON, b'{"a":' * 3000 + b"1" + b"}" * 3000, 400, "exceeded max depth"),
    "deep JSON that never closes": ("POST", CONFIGMAPS, JSON, b"[" * 50_000, 400, "json parse error"),
    "deep YAML": ("POST", CONFIGMAPS, YAML, b"[" * 5000, 400, "yaml: exceeded max depth"),
    "deep patch": ("PATCH", f"{CONFIGMAPS}/grown", JSON_PATCH, b'[{"op":"add","path":"/data","value":'
                   + b"[" * 500 + b"]" * 500 + b"}]", 400, "exceeded max depth"),
    "10,001 operations": (
        "PATCH", f"{CONFIGMAPS}/grown", JSON_PATCH, additions(10_001), 413,
        "The allowed maximum operations in a JSON patch is 10000, got 10001",
    ),
    "copies that double": (
        "PATCH", f"{CONFIGMAPS}/grown", JSON_PATCH, doubling(60), 422,
        "Unable to complete the copy, the accumulated size increase of copy is",
    ),
    "compressed": ("POST", CONFIGMAPS, JSON, gzip.compress(items('""', 900_000)), 400, "json parse error"),
    "a pattern that backtracks": (
        "POST", GADGETS, JSON,
        json.dumps({"apiVersion": "example.org/v1", "kind": "Gadgets", "metadata": {"name": "g"}, "word": "a" * 60 + "b"})
        .encode(), 422, "word in body should match '^(a+)+$'",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("method", "path", "kind", "body", "code", "said"), TOO_MUCH.values(), ids=TOO_MUCH)
def test_what_is_too_much_is_refused(
    api: InProcess, method: str, path: str, kind: str, body: bytes, code: int, said: str
) -> None:
    answer = send(api, method, path, kind, body)
    assert answer.code == code, answer.text[:500]
    assert said in answer.body["message"]


MUCH: dict[str, tuple[str, str, str, bytes]] = {
    "90,000 finalizers": ("POST", CONFIGMAPS, JSON, items('""', 90_000)),
    "30,000 containers": (
        "POST", f"{NAMESPACE}/pods", JSON,
        b'{"metadata":{"name":"p"},"spec":{"containers":[' + b",".join([b'{"name":"a"}'] * 30_000) + b"]}}",
    ),
    "40,000 ports": (
        "POST", f"{NAMESPACE}/services", JSON,
        json.dumps({"metadata": {"name": "s"}, "spec": {"ports": [{"port": n} for n in range(40_000)]}}).encode(),
    ),
    "90,000 keys": (
        "POST", CONFIGMAPS, JSON,
        json.dumps({"metadata": {"name": "keys"}, "data": {f"k{n}": "v" for n in range(90_000)}}).encode(),
    ),
    "9,000 operations on them": ("PATCH", f"{CONFIGMAPS}/keys", JSON_PATCH, additions(9_000)),
    "20,000 keys applied to them": (
        "PATCH", f"{CONFIGMAPS}/keys?fieldManager=m", APPLY,
        json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "data": {f"z{n}": "v" for n in range(20_000)}}).encode(),
    ),
    "90,000 of a set": (
        "POST", GADGETS, JSON,
        json.dumps({"apiVersion": "example.org/v1", "kind": "Gadgets", "metadata": {"name": "g"},
                    "word": "a", "list": list(range(90_000))}).encode(),
    ),
    "40,000 secrets merged": ("PATCH", f"{NAMESPACE}/serviceaccounts/default", STRATEGIC, named("secrets", 40_000)),
    "10,000 secrets applied": (
        "PATCH", f"{NAMESPACE}/serviceaccounts/default?fieldManager=m&force=true", APPLY,
        named("secrets", 10_000, apiVersion="v1", kind="ServiceAccount"),
    ),
    "the list of all that": ("GET", CONFIGMAPS, JSON, b""),
    "the OpenAPI document": ("GET", "/openapi/v2", JSON, b""),
}  # fmt: skip


@pytest.mark.parametrize(("method", "path", "kind", "body"), MUCH.values(), ids=MUCH)
def test_nobody_waits_for_a_long_request(api: InProcess, method: str, path: str, kind: str, body: bytes) -> None:
    turns = []
    for _ in range(3):
        api.longest_turn = 0.0
        answer = send(api, method, path, kind, body)
        assert answer.code < 500, answer.text[:500]
        turns.append(api.longest_turn)
        # What holds others up does it each time; caches that others empty do not.
        if api.longest_turn < LONGEST_TURN:
            return
    raise AssertionError(f"others waited for {turns} seconds of CPU time")


def test_a_write_that_is_overtaken_is_done_anew(api: InProcess) -> None:
    """A long patch runs in a worker; what others write meanwhile is kept."""
    loop, store = api._loop, api.server.endpoints.registry.store
    assert api.create(CONFIGMAPS, {"metadata": {"name": "contested"}, "data": {}}).code == 201

    async def both() -> None:
        long = request_of("PATCH", f"{CONFIGMAPS}/contested", JSON_PATCH, additions(5000), loop)
        running = asyncio.create_task(api.server.handle(long))
        written = 0
        while not running.done():
            body = json.dumps({"data": {f"short{written}": "x"}}).encode()
            short = request_of("PATCH", f"{CONFIGMAPS}/contested", "application/merge-patch+json", body, loop)
            if written < 3:
                assert (await api.server.handle(short)).status == 200
                written += 1
            await asyncio.sleep(0.001)
        assert (await running).status == 200

    loop.run_until_complete(both())
    stored = store.get(Key("configmaps", "default", "contested"))
    assert stored is not None
    assert len(stored.obj["data"]) == 5003


REFUSED_PATTERNS = {
    "(": "missing closing ): `(`",
    "a**": "invalid nested repetition operator: `**`",
    "(?=a)": "invalid or unsupported Perl syntax: `(?=`",
    "+": "missing argument to repetition operator: `+`",
    "[z-a]": "invalid character class range: `z-a`",
    r"\1": r"invalid escape sequence: `\1`",
    "a{1001}": "invalid repeat count: `{1001}`",
    "[a": "missing closing ]: `[a`",
    r"\pL{999}": r"expression too large: `\pL{999}`",
}


@pytest.mark.parametrize(("pattern", "said"), REFUSED_PATTERNS.items(), ids=REFUSED_PATTERNS)
def test_a_pattern_that_go_refuses_is_refused(api: InProcess, pattern: str, said: str) -> None:
    answer = api.create(DEFINITIONS, definition({"p": {"type": "string", "pattern": pattern}}, "things"))
    path = "spec.versions[0].schema.openAPIV3Schema.properties[p].pattern"
    shown = json.dumps(pattern)
    text = (
        f"{path}: Invalid value: {shown}: must be a valid regular expression, but isn't: error parsing regexp: {said}"
    )
    assert (answer.code, answer.body["message"]) == (
        422, f'CustomResourceDefinition.apiextensions.k8s.io "things.example.org" is invalid: {text}',
    )  # fmt: skip


NO_HTTP = {
    "HTTP/0.9": (b"GET /version\r\n\r\n", b"HTTP/1.1 400 Bad Request"),
    "HTTP/0.9 by name": (b"GET /version HTTP/0.9\r\nHost: x\r\n\r\n", b"HTTP/1.1 400 Bad Request"),
    "HTTP/2.0 without its preface": (b"GET /version HTTP/2.0\r\nHost: x\r\n\r\n", b"HTTP/1.1 505 HTTP Version Not Supported"),
    "no method": (b"\x00\x01\r\n\r\n", b"HTTP/1.1 400 Bad Request"),
    "a negative length": (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b"HTTP/1.1 400 Bad Request"),
    "two lengths": (
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", b"HTTP/1.1 400 Bad Request",
    ),
    "a bad chunk": (
        b"POST /api HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"HTTP/1.1 400 Bad Request",
    ),
    "an endless header": (
        b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 100_000 + b"\r\n\r\n", b"HTTP/1.1 431 Request Header Fields Too Large",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def running() -> Iterator[RunningApiServer]:
    with RunningApiServer() as server:
        yield server


@pytest.mark.parametrize(("data", "first_line"), NO_HTTP.values(), ids=NO_HTTP)
def test_what_is_no_http_ends_its_connection_with_one_line_of_log(
    running: RunningApiServer, data: bytes, first_line: bytes
) -> None:
    before = running.log()
    context = ssl.create_default_context(cafile=str(running.authority.certificate))
    with (
        socket.create_connection(("127.0.0.1", running.port), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        peer = f"127.0.0.1:{connection.getsockname()[1]}"
        connection.sendall(data)
        received = b""
        while part := connection.recv(4096):
            received += part
    assert received.startswith(first_line + b"\r\n")
    told = running.log()[len(before) :]
    assert "Traceback" not in told
    assert told.count(peer) == 1


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_a_body_of_more_than_3_mib_is_refused(running: RunningApiServer, encoding: str) -> None:
    context = ssl.create_default_context(cafile=str(running.authority.certificate))
    issued = running.authority.issue("somebody", groups=("system:masters",))
    context.load_cert_chain(issued.certificate, issued.key)
    connection = http.client.HTTPSConnection("localhost", running.port, context=context, timeout=20)
    connection.request(
        "POST", CONFIGMAPS, b" " * (bodies.MAX_BYTES + 1), {"Content-Type": JSON, "Content-Encoding": encoding}
    )
    answer = json.loads(connection.getresponse().read())
    connection.close()
    assert (answer["code"], answer["reason"]) == (413, "RequestEntityTooLarge")
    assert answer["message"] == "Request entity too large: limit is 3145728"


def test_one_client_that_says_nonsense_does_not_end_the_listener(running: RunningApiServer, tmp_path: Path) -> None:
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", running.port), timeout=20) as plain:
            plain.sendall(b"\x16\x03\x01\x00\xff" + b"\x00" * 300)
    assert running._ready()


LONG_IN_SMALL: dict[str, tuple[str, str, str, bytes]] = {
    "a review in YAML": (
        "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", YAML,
        b"apiVersion: authorization.k8s.io/v1\nkind: SelfSubjectAccessReview\nspec:\n  nonResourceAttributes: {path: /}\nx:\n"
        + b"- a\n" * 90_000,
    ),
    "a definition whose patterns compile for long": (
        "POST", DEFINITIONS, JSON,
        json.dumps(definition({f"p{n}": {"type": "string", "pattern": rf"(\pL{{99{n}}})b"} for n in range(5)}, "slow"))
        .encode(),
    ),
    "an object of a schema that is far longer": (
        "POST", "/apis/example.org/v1/namespaces/default/wides", JSON,
        json.dumps({"apiVersion": "example.org/v1", "kind": "Wides", "metadata": {"name": "w"}, "l": [1] * 200}).encode(),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("method", "path", "kind", "body"), LONG_IN_SMALL.values(), ids=LONG_IN_SMALL)
def test_nobody_waits_for_a_small_request_that_is_long(
    api: InProcess, method: str, path: str, kind: str, body: bytes
) -> None:
    """As above, but the bytes do not tell it. Once: what is compiled is kept."""
    wide = {"l": {"type": "array", "items": {"type": "integer", "allOf": [{"minimum": 0}] * 1000}}}
    api.create(DEFINITIONS, definition(wide, "wides"))
    api("GET", CONFIGMAPS)  # it is served from the next turn of the loop on
    api.longest_turn = 0.0
    answer = send(api, method, path, kind, body)
    assert answer.code in (201, 422), answer.text[:500]
    assert api.longest_turn < LONGEST_TURN


def test_merges_of_yaml_take_linear_time(api: InProcess) -> None:
    sources = b",".join([b"{k1: w, x: y}"] * 3000)
    body = (
        b"metadata: {name: merged}\ndata:\n  <<: ["
        + sources
        + b"]\n"
        + b"".join(b"  k%d: v\n" % n for n in range(20_000))
    )
    started = time.process_time()
    assert send(api, "POST", CONFIGMAPS, YAML, body).code == 201
    assert time.process_time() - started < 2
    data = api("GET", f"{CONFIGMAPS}/merged").body["data"]
    assert (data["k1"], data["x"], len(data)) == ("v", "y", 20_001)


def _listing(item: dict[str, Any]) -> dict[str, Any]:
    return {"l": {"type": "array", "items": item}}


AMPLIFIED: dict[str, tuple[dict[str, Any], dict[str, Any], int, str]] = {
    "defaults in each item of a list": (
        _listing({"type": "object", "properties": {f"p{n}": {"type": "integer", "default": 1} for n in range(500)}}),
        {"l": [{}] * 1000}, 413, "limit is 100000 values",
    ),
    "a long default in each item": (
        _listing({"type": "object", "properties": {"p": {"type": "array", "items": {"type": "integer"},
                                                         "default": [1] * 2000}}}),
        {"l": [{}] * 500}, 413, "limit is 100000 values",
    ),
    "many that each item lacks": (
        _listing({"type": "object", "required": [f"p{n}" for n in range(10_000)]}), {"l": [{}] * 500}, 422, "Required value",
    ),
    "many checks of each item": (
        _listing({"type": "integer", "allOf": [{"minimum": 0}] * 20_000}), {"l": [1] * 20_000}, 413,
        "limit is 10000000 checks of the schema",
    ),
    "many comparisons of each item": (
        _listing({"type": "integer", "enum": list(range(20_000))}), {"l": [19_999] * 50_000}, 413, "checks of the schema",
    ),
    "a long value that is wrong in many ways": (
        {"s": {"type": "string", "allOf": [{"pattern": f"^b{n}"} for n in range(100)]}}, {"s": "a" * 500_000}, 422,
        "should match",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("schema", "sent", "code", "said"), AMPLIFIED.values(), ids=AMPLIFIED)
def test_a_schema_does_not_multiply_without_end(
    api: InProcess, monkeypatch: pytest.MonkeyPatch, schema: dict[str, Any], sent: dict[str, Any], code: int, said: str
) -> None:
    monkeypatch.setattr(structural, "_MOST_CHECKS", min(structural._MOST_CHECKS, 1_000_000))
    plural = f"s{zlib.crc32(json.dumps(schema).encode())}"
    assert api.create(DEFINITIONS, definition(schema, plural)).code == 201
    api("GET", CONFIGMAPS)
    obj = {"apiVersion": "example.org/v1", "kind": plural.capitalize(), "metadata": {"name": "o"}, **sent}
    started = time.process_time()
    answer = api.create(f"/apis/example.org/v1/namespaces/default/{plural}", obj)
    assert answer.code == code
    assert said.replace("10000000", "1000000") in answer.body["message"]
    assert len(answer.text) < 6 * 1024 * 1024
    assert time.process_time() - started < 10


@pytest.mark.parametrize("accept", ["application/json", "application/json;as=Table;v=v1;g=meta.k8s.io"])
def test_nobody_waits_for_a_list_of_few_that_are_large(api: InProcess, accept: str) -> None:
    """After a restart the objects are not decoded yet."""
    for number in range(60):
        large = {"metadata": {"name": f"large{number}"}, "data": {f"{key}": "x" * 80 for key in range(9_000)}}
        assert api.create(f"{NAMESPACE}/configmaps", large).code in (201, 409)
    for stored in api.server.endpoints.registry.store.items("configmaps"):
        stored.forget()
    api.longest_turn = 0.0
    assert api("GET", f"{CONFIGMAPS}?labelSelector=a", Accept=accept).code == 200
    assert api.longest_turn < LONGEST_TURN


def test_discovery_of_many_versions_takes_linear_time(api: InProcess) -> None:
    many = definition({}, "versioned")
    first = many["spec"]["versions"][0]
    more = [{**first, "name": f"v{number}", "storage": False} for number in range(2, 1000)]
    many["spec"]["versions"] = [first, *more]
    assert api.create(DEFINITIONS, many).code == 201
    api("GET", CONFIGMAPS)
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    started = time.process_time()
    groups = api("GET", "/apis", Accept=accept).body["items"]
    assert time.process_time() - started < 0.2
    versions = next(one["versions"] for one in groups if one["metadata"]["name"] == "example.org")
    assert len(versions) == 999
    assert "versioned" in [one["resource"] for one in versions[0]["resources"]]


def test_a_document_of_an_old_catalog_is_not_kept(api: InProcess) -> None:
    """OpenAPI is made in a worker; a definition may come meanwhile."""
    documents = api.server.documents
    request = request_of("GET", "/openapi/v2", JSON, b"", api._loop)

    def make() -> bytes:
        api.server.catalog.replace_custom(list(api.server.catalog.custom.values()))
        documents._cached("other", lambda: b"fresh", request)
        return b"stale"

    assert documents._cached("contested", make, request).body == b"stale"
    assert documents._cached("contested", lambda: b"fresh", request).body == b"fresh"


def test_metrics_do_not_grow_by_names_that_nobody_serves(api: InProcess) -> None:
    def size() -> int:
        return len(api("GET", "/metrics").text)

    for _ in range(2):
        api("GET", "/apis/first.example/v1/namespaces/a/things")
        api("FIRST", CONFIGMAPS)
        api("GET", f"{CONFIGMAPS}/x/first")
        before = size()
    for number in range(20):
        api("GET", f"/apis/g{number}.example/v1/namespaces/a/things{number}")
        api(f"VERB{number}", CONFIGMAPS)
        api("GET", f"{CONFIGMAPS}/x/sub{number}")
    assert size() - before < 2000


def test_nobody_waits_for_fields_that_are_deep(api: InProcess) -> None:
    fields: dict[str, Any] = {f"f:l{number}": {} for number in range(2000)}
    for _ in range(150):
        fields = {"f:a": fields}
    managed: list[dict[str, Any]] = [
        {"manager": name, "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": owned}
        for name, owned in (("m", fields), ("n", {"f:data": {"f:a": {}}}))
    ]
    obj = {"metadata": {"name": "deep", "managedFields": managed}, "data": {"a": "b"}}
    assert api.create(CONFIGMAPS, obj).code == 201
    api.longest_turn = 0.0
    applied = json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "data": {"c": "b"}}).encode()
    answer = send(api, "PATCH", f"{CONFIGMAPS}/deep?fieldManager=n", APPLY, applied)
    assert answer.code == 200, answer.text[-2000:]
    assert answer.body["data"] == {"c": "b"}
    assert api.longest_turn < LONGEST_TURN
