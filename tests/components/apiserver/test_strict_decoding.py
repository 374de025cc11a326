"""What fieldValidation says of repeated keys and unknown fields, in JSON, YAML and patches."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web

from kubewire.components.apiserver.http.duplicatekeys import duplicate_keys
from tests.fuzz.apiserver.in_process import TOKEN, InProcess, _request, in_process

CONFIGMAPS = "/api/v1/namespaces/default/configmaps"
START = 'ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: '
JSON = b'{"metadata":{"name":"%b","labels":{"a":"1","a":"2"}},"data":{"k":"v"},"dta":{},"data":{"k":"w"}}'
YAML = b"metadata:\n  name: %b\n  name: %b\ndata:\n  k: v\n  k: w\n"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with in_process(tmp_path_factory.mktemp("apiserver")) as running:
        yield running


def warnings(api: InProcess, method: str, path: str, body: bytes, **headers: str) -> list[str]:
    """The texts of the Warning headers."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    request = _request(method, path, sent | {"Authorization": f"Bearer {TOKEN}"}, api._loop)
    request._read_bytes = body

    async def answered() -> web.StreamResponse:
        async with asyncio.timeout(30):
            return await api.server.handle(request)

    response = api._loop.run_until_complete(answered())
    assert response.status in (200, 201), getattr(response, "body", b"")
    return [text.removeprefix('299 - "')[:-1].replace("\\", "") for text in response.headers.getall("Warning", [])]


KEYS: list[Any] = [
    pytest.param(b'{"a":1,"b":{"c":2}}', (), id="no key twice"),
    pytest.param(b'{"a":":{,}\\":","b":"\\\\"}', (), id="colons and quotes in texts"),
    pytest.param(b'{"a":1,"a":1,"a":1}', ("a",), id="reported once"),
    pytest.param(b'{"s":[{"n":1},{"n":1,"n":2}],"m":{"x":{"y":0,"y":0}}}', ("s[1].n", "m.x.y"), id="with their paths"),
    pytest.param(b'{"a":{"b":1},"a":{"b":1}}', ("a",), id="the same key in two objects"),
    pytest.param(b'{"a":"\\u003a","b":1,"b":1}', ("b",), id="an escaped colon in a text stands for no key"),
]


@pytest.mark.parametrize(("body", "paths"), KEYS)
def test_repeated_keys_of_json(body: bytes, paths: tuple[str, ...]) -> None:
    import orjson

    assert duplicate_keys(body, orjson.loads(body)) == tuple(f'duplicate field "{path}"' for path in paths)


def test_no_more_than_a_hundred_are_reported() -> None:
    body = b"{" + b",".join(b'"k%d":1,"k%d":1' % (number, number) for number in range(200)) + b"}"
    assert len(duplicate_keys(body, {})) == 100


def test_json_that_is_created(api: InProcess) -> None:
    found = ['duplicate field "metadata.labels.a"', 'duplicate field "data"', 'unknown field "dta"']
    strict = api("POST", f"{CONFIGMAPS}?fieldValidation=Strict", JSON % b"strict")
    assert (strict.code, strict.body["message"]) == (400, START + ", ".join(found))
    assert warnings(api, "POST", CONFIGMAPS, JSON % b"warn") == found
    assert warnings(api, "POST", f"{CONFIGMAPS}?fieldValidation=Ignore", JSON % b"ignore") == []


def test_yaml_that_is_created(api: InProcess) -> None:
    lines = ['line 3: key "name" already set in map', 'line 6: key "k" already set in map']
    kind = {"Content_Type": "application/yaml"}
    strict = api("POST", f"{CONFIGMAPS}?fieldValidation=Strict", YAML % (b"y", b"y"), **kind)
    text = "\n  ".join(["yaml: unmarshal errors:", *lines])
    assert (strict.code, strict.body["message"]) == (400, START + text)
    assert warnings(api, "POST", CONFIGMAPS, YAML % (b"y", b"y"), **kind) == lines


def test_configurations_that_are_applied(api: InProcess) -> None:
    path = f"{CONFIGMAPS}/applied?fieldManager=me"
    body = b'{"apiVersion":"v1","kind":"ConfigMap","data":{"k":"v","k":"w"}}'
    kind = {"Content_Type": "application/apply-patch+yaml"}
    strict = api("PATCH", f"{path}&fieldValidation=Strict", body, **kind)
    text = 'yaml: unmarshal errors:\n  line 1: key "k" already set in map'
    assert (strict.code, strict.body["message"]) == (
        400,
        f"error strict decoding YAML: error converting YAML to JSON: {text}",
    )
    assert warnings(api, "PATCH", path, body, **kind) == ['line 1: key "k" already set in map']


@pytest.mark.parametrize(
    ("kind", "body", "found"),
    [
        pytest.param("merge", b'{"data":{"a":"1","a":"2"}}', 'duplicate field "data.a"', id="merge patch"),
        pytest.param("strategic-merge", b'{"data":{"a":"1","a":"3"}}', 'duplicate field "data.a"', id="strategic"),
        pytest.param(
            "json",
            b'[{"op":"add","path":"/data","value":{},"value":{"a":"4"}}]',
            'json patch duplicate field "[0].value"',
            id="JSON patch",
        ),
    ],
)
def test_patches(api: InProcess, kind: str, body: bytes, found: str) -> None:
    api.create(CONFIGMAPS, {"metadata": {"name": "patched"}})
    types = {"json": "application/json-patch+json"}
    media_type = types.get(kind, f"application/{kind}-patch+json")
    assert warnings(api, "PATCH", f"{CONFIGMAPS}/patched", body, Content_Type=media_type) == [found]


PATCHES: list[Any] = [
    pytest.param(
        "strategic-merge",
        b'{"data":{"a":"1"},"dta":[null,true,"x"]}',
        '"map[data:map[a:1] dta:[<nil> true x]]": strict decoding error: unknown field "dta"',
        id="a strategic merge patch shows itself",
    ),
    pytest.param("strategic-merge", b'{"data":{"a":1}}', '"map[data:map[a:1]]": json: cannot', id="another type"),
    pytest.param("merge", b'{"dta":1}', '\\"dta\\":1', id="a merge patch shows the object"),
]


@pytest.mark.parametrize(("kind", "body", "text"), PATCHES)
def test_a_patched_object_that_cannot_be_decoded_is_invalid(api: InProcess, kind: str, body: bytes, text: str) -> None:
    api.create(CONFIGMAPS, {"metadata": {"name": "refused"}})
    path = f"{CONFIGMAPS}/refused?fieldValidation=Strict"
    answer = api("PATCH", path, body, Content_Type=f"application/{kind}-patch+json")
    assert answer.code == 422
    assert answer.body["message"].startswith(' "" is invalid: patch: Invalid value: ')
    assert text in answer.body["message"]
