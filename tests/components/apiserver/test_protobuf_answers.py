"""Answers in protobuf, as client-go's typed clients ask for them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from kubewire.components.apiserver.http import protobuf, protobuf_writer
from kubewire.components.apiserver.openapi.models import all_models, referenced
from kubewire.components.kubeapi.client import Client
from tests.components.apiserver.conftest import Run
from tests.fuzz.apiserver.in_process import InProcess, in_process

MEDIA_TYPE = protobuf.MEDIA_TYPE
ACCEPT = f"{MEDIA_TYPE},application/json"
CONFIGMAPS = "/api/v1/namespaces/default/configmaps"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with in_process(tmp_path_factory.mktemp("apiserver")) as running:
        account = {"metadata": {"name": "default"}}
        assert running.create("/api/v1/namespaces/default/serviceaccounts", account).code == 201
        schema = {"openAPIV3Schema": {"type": "object"}}
        version = {"name": "v1", "served": True, "storage": True, "schema": schema}
        crd = {"metadata": {"name": "boxes.example.com"}, "spec": BOX | {"versions": [version]}}
        assert running.create(CRDS, crd).code == 201
        assert running.create(CONFIGMAPS, {"metadata": {"name": "first"}, "data": {"a": "b"}}).code == 201
        yield running


def decoded(body: bytes) -> dict[str, Any]:
    found, unknown = protobuf.decode(body)
    assert unknown == ()
    return found


def example(kind: str, key: str, depth: int) -> Any:
    """A value of a type as models.py writes it."""
    match kind[0]:
        case "[":
            return [example(kind[1:], key, depth)]
        case "{":
            return {"a": example(kind[1:], key, depth)}
        case "#":
            inner = referenced(kind)
            assert inner is not None
            # Inside another object, protobuf has no kind and apiVersion.
            gone = {"kind", "apiVersion"} if inner.kind else set()
            own = {name: held for name, held in inner.fields.items() if name not in gone and depth}
            return {name: example(held, name, depth - 1) for name, held in own.items()}
    texts = {"t": "2026-01-01T00:00:00Z", "u": "2026-01-01T00:00:00.000001Z", "y": "AP8=", "q": "100m"}
    others: dict[str, Any] = {"b": True, "i": 7, "l": -1, "n": 0.5, "x": "http", "o": {"any": ["json"]}}
    return texts.get(kind) or others.get(kind) or ("1m30s" if key == "window" else "text")


KINDS = sorted(model.kind for model in all_models().values() if model.kind is not None)
#: What is read from a JSON Schema is any JSON in models.json, and more in protobuf.
WITH_SCHEMAS = {"CustomResourceDefinition", "CustomResourceDefinitionList"}
ROUND_TRIPS = [kind for kind in KINDS if kind[2] not in WITH_SCHEMAS and not kind[2].endswith("List")]
BOX = {
    "group": "example.com",
    "scope": "Namespaced",
    "names": {"plural": "boxes", "singular": "box", "kind": "Box", "listKind": "BoxList"},
}


@pytest.mark.parametrize("kind", ROUND_TRIPS, ids=lambda kind: kind[2])
def test_every_field_of_every_kind_comes_back(kind: tuple[str, str, str]) -> None:
    group, version, name = kind
    model = next(one for one in all_models().values() if one.kind == kind)
    obj = {key: example(held, key, 6) for key, held in model.fields.items()}
    obj |= {"apiVersion": f"{group}/{version}" if group else version, "kind": name}
    assert decoded(protobuf_writer.encode(obj)) == obj


def test_a_definition_comes_back(api: InProcess) -> None:
    schema = {
        "type": "object",
        "properties": {
            "size": {"type": "integer", "default": 0, "minimum": 1.5, "x-kubernetes-int-or-string": True},
            "list": {"type": "array", "items": {"type": "string", "enum": ["a", 1, None]}},
            "map": {"type": "object", "additionalProperties": False},
            "free": {"type": "object", "additionalProperties": {"type": "string"}},
        },
    }
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    spec = BOX | {"group": "sent.example.com", "versions": [version]}
    crd: dict[str, Any] = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "spec": spec}
    crd["metadata"] = {"name": "boxes.sent.example.com"}
    sent = protobuf_writer.encode(crd)
    answer = api("POST", CRDS, sent, Content_Type=MEDIA_TYPE, Accept=ACCEPT)
    assert answer.code == 201, answer.text
    assert decoded(answer.text)["spec"] == spec | {"conversion": {"strategy": "None"}}


def test_objects_and_lists_are_what_json_has(api: InProcess) -> None:
    sent = protobuf_writer.encode(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}}
    )
    created = api("POST", CONFIGMAPS, sent, Content_Type=MEDIA_TYPE, Accept=ACCEPT)
    assert created.code == 201, created.text
    one = api("GET", f"{CONFIGMAPS}/a", Accept=ACCEPT)
    assert decoded(one.text) == decoded(created.text) == api("GET", f"{CONFIGMAPS}/a").body
    items = decoded(api("GET", CONFIGMAPS, Accept=ACCEPT).text)
    in_json = api("GET", CONFIGMAPS).body
    assert (items["kind"], items["metadata"]) == ("ConfigMapList", in_json["metadata"])
    for item in in_json["items"]:
        # In a list of protobuf, as in upstream's, items do not say their kind.
        del item["kind"], item["apiVersion"]
    assert items["items"] == in_json["items"]


def test_errors_and_deletions_are_statuses_in_protobuf(api: InProcess) -> None:
    missing = api("GET", f"{CONFIGMAPS}/none", Accept=ACCEPT)
    assert (missing.code, decoded(missing.text)["reason"]) == (404, "NotFound")
    api.create(CONFIGMAPS, {"metadata": {"name": "gone"}})
    options = protobuf_writer.encode({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"})
    deleted = api("DELETE", f"{CONFIGMAPS}/gone", options, Content_Type=MEDIA_TYPE, Accept=ACCEPT)
    assert decoded(deleted.text)["status"] == "Success"


def test_metadata_alone(api: InProcess) -> None:
    accept = f"{MEDIA_TYPE};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    answer = decoded(api("GET", CONFIGMAPS, Accept=accept).text)
    assert answer["kind"] == "PartialObjectMetadataList"
    assert "data" not in answer["items"][0]
    assert answer["items"][0]["metadata"]["uid"]


@pytest.mark.parametrize(
    ("path", "accept", "code", "media_type"),
    [
        pytest.param(CONFIGMAPS, "application/json,application/vnd.kubernetes.protobuf", 200, "application/json", id="JSON first"),
        pytest.param(CONFIGMAPS, f"{MEDIA_TYPE};as=Table;g=meta.k8s.io;v=v1", 406, "application/json", id="a Table has none"),
        pytest.param(CONFIGMAPS, f"{MEDIA_TYPE};as=Table;g=meta.k8s.io;v=v1,{ACCEPT}", 200, MEDIA_TYPE, id="instead of a Table"),
        pytest.param("/apis/example.com/v1/boxes", MEDIA_TYPE, 406, "application/json", id="custom objects have none"),
        pytest.param("/apis/example.com/v1/boxes", f"{MEDIA_TYPE}, */*", 200, "application/json", id="custom objects in JSON"),
    ],
)  # fmt: skip
def test_what_is_answered(api: InProcess, path: str, accept: str, code: int, media_type: str) -> None:
    answer = api("GET", path, Accept=accept)
    assert answer.code == code
    assert (answer.text[:4] == b"k8s\x00") == (media_type == MEDIA_TYPE)


def test_a_field_of_a_newer_release_is_not_dropped_in_silence(api: InProcess) -> None:
    raw = b"\x0a\x05\x0a\x03new" + b"\xf2\x01\x00"  # metadata.name, and field 30
    sent = protobuf_writer.enveloped("v1", "ConfigMap", raw)
    strict = api("POST", f"{CONFIGMAPS}?fieldValidation=Strict", sent, Content_Type=MEDIA_TYPE)
    assert (strict.code, strict.body["message"]) == (
        400,
        'ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: '
        "unknown field 30 of core.v1.ConfigMap",
    )
    assert api("POST", CONFIGMAPS, sent, Content_Type=MEDIA_TYPE).code == 201


def test_reviews(api: InProcess) -> None:
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    spec = {"nonResourceAttributes": {"path": "/", "verb": "get"}}
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": spec}
    answer = api("POST", path, protobuf_writer.encode(body), Content_Type=MEDIA_TYPE, Accept=ACCEPT)
    assert decoded(answer.text)["status"]["allowed"] is True
    table = "application/json;as=Table;g=meta.k8s.io;v=v1"
    assert api("POST", path, orjson.dumps(body), Accept=table).code == 406
    assert api("POST", path, orjson.dumps(body), Accept=f"{table},application/json").code == 201


def test_a_watch_is_a_sequence_of_frames(run: Run) -> None:
    async def act(client: Client) -> None:
        url = f"{client.credentials.server}{CONFIGMAPS}?watch=true&fieldSelector=metadata.name=watched"
        async with client.session().get(url, headers={"Accept": ACCEPT}) as response:
            assert response.content_type == MEDIA_TYPE
            assert response.headers["Content-Type"].endswith(";stream=watch")
            body = orjson.dumps({"metadata": {"name": "watched"}, "data": {"a": "b"}})
            await client.request("POST", CONFIGMAPS, body=body)
            async with asyncio.timeout(10):
                size = int.from_bytes(await response.content.readexactly(4), "big")
                event = await response.content.readexactly(size)
        # type: ADDED, then the object as a RawExtension with its whole body.
        assert event.startswith(b"\x0a\x05ADDED\x12")
        found = decoded(event[event.index(b"k8s\x00") :])
        assert (found["kind"], found["metadata"]["name"], found["data"]) == ("ConfigMap", "watched", {"a": "b"})

    run(act)
