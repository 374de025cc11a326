"""CustomResourceDefinitions and their objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from kubewire.components.apiserver import jsonpath
from kubewire.components.apiserver.crd import customresources, structural
from kubewire.components.kubeapi.client import ApiError, Client
from kubewire.components.kubeapi.resources import CUSTOMRESOURCEDEFINITIONS, KubeObject, Resource
from tests.components.apiserver.conftest import Run
from tests.fuzz.apiserver.in_process import in_process

SCHEMA: Any = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "required": ["size"],
            "properties": {
                "size": {"type": "integer", "minimum": 1, "maximum": 9},
                "color": {"type": "string", "default": "red", "enum": ["red", "blue"]},
                "replicas": {"type": "integer"},
                "port": {"x-kubernetes-int-or-string": True},
                "names": {
                    "type": "array",
                    "x-kubernetes-list-type": "set",
                    "items": {"type": "string", "pattern": "^a"},
                },
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "gone": {"type": "string", "nullable": True},
            },
        },
        "status": {"type": "object", "properties": {"replicas": {"type": "integer"}, "phase": {"type": "string"}}},
    },
}


def definition(plural: str, kind: str) -> Any:
    version = {
        "schema": {"openAPIV3Schema": SCHEMA},
        "subresources": {
            "status": {},
            "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"},
        },
        "additionalPrinterColumns": [
            {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        ],
        "selectableFields": [{"jsonPath": ".spec.color"}],
    }
    versions = [version | {"name": "v1", "served": True, "storage": True}]
    versions.append(version | {"name": "v1beta1", "served": True, "storage": False})
    spec = {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": plural, "kind": kind, "shortNames": [plural[:2]]},
        "versions": versions,
    }
    return {"metadata": {"name": f"{plural}.example.com"}, "spec": spec}


async def defined(client: Client, plural: str, kind: str) -> Resource[Any]:
    await client.create(CUSTOMRESOURCEDEFINITIONS, definition(plural, kind))
    crd = await client.get(CUSTOMRESOURCEDEFINITIONS, f"{plural}.example.com")
    conditions = {one["type"]: one["status"] for one in crd["status"]["conditions"]}
    assert conditions["NamesAccepted"] == conditions["Established"] == "True"
    assert crd["status"]["acceptedNames"]["listKind"] == f"{kind}List"
    assert crd["status"]["storedVersions"] == ["v1"]
    return Resource("example.com", "v1", plural, kind)


def obj(kind: str, name: str, version: str = "v1", **spec: Any) -> Any:
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": f"example.com/{version}", "kind": kind, "metadata": metadata, "spec": spec}


def test_objects_are_pruned_defaulted_and_served_in_all_versions(run: Run) -> None:
    async def act(client: Client) -> None:
        widgets = await defined(client, "widgets", "Widget")
        made = await client.create(widgets, obj("Widget", "w", size=3, unknown=1, free={"any": 1}))
        assert made["spec"] == {"size": 3, "color": "red", "free": {"any": 1}}
        assert made["metadata"]["generation"] == 1
        beta: Resource[Any] = Resource("example.com", "v1beta1", "widgets", "Widget")
        assert (await client.get(beta, "w", "default"))["apiVersion"] == "example.com/v1beta1"
        await client.create(beta, obj("Widget", "other", "v1beta1", size=1, color="blue"))
        listed = await client.list(widgets, "default")
        assert {item["apiVersion"] for item in listed.items} == {"example.com/v1"}
        blue = await client.list(widgets, "default", field_selector="spec.color=blue")
        assert [item["metadata"]["name"] for item in blue.items] == ["other"]
        watch = client.watch(beta, resource_version="0")
        assert (await anext(watch)).object["apiVersion"] == "example.com/v1beta1"
        await watch.aclose()

    run(act)


def test_status_and_scale_are_apart_from_the_rest(run: Run) -> None:
    async def act(client: Client) -> None:
        gadgets = await defined(client, "gadgets", "Gadget")
        made = await client.create(gadgets, obj("Gadget", "g", size=1) | {"status": {"phase": "x"}})
        assert "status" not in made
        patch = {"status": {"phase": "Up", "replicas": 2}, "spec": {"size": 5}}
        after = await client.patch(gadgets, "g", patch, "default", subresource="status")
        assert (after["status"]["phase"], after["spec"]["size"]) == ("Up", 1)
        assert after["metadata"]["generation"] == 1
        scale = await client.patch(gadgets, "g", {"spec": {"replicas": 4}}, "default", subresource="scale")
        assert (scale["spec"]["replicas"], scale["status"]["replicas"]) == (4, 2)
        assert (await client.get(gadgets, "g", "default"))["metadata"]["generation"] == 2

    run(act)


def test_an_update_needs_the_version(run: Run) -> None:
    async def act(client: Client) -> None:
        things = await defined(client, "things", "Thing")
        await client.create(things, obj("Thing", "t", size=1))
        with pytest.raises(ApiError) as error:
            await client.update(things, obj("Thing", "t", size=2))
        assert error.value.message == (
            'Thing.example.com "t" is invalid: metadata.resourceVersion: Invalid value: 0: '
            "must be specified for an update"
        )

    run(act)


def test_columns_discovery_and_the_end(run: Run) -> None:
    async def act(client: Client) -> None:
        parts = await defined(client, "parts", "Part")
        await client.create(parts, obj("Part", "p", size=7))
        headers = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
        table = orjson.loads(await client.request("GET", parts.path("default"), headers=headers))
        assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Size", "Age"]
        assert table["rows"][0]["cells"][:2] == ["p", 7]
        document = orjson.loads(await client.request("GET", "/apis/example.com/v1"))
        assert {"parts", "parts/status", "parts/scale"} <= {one["name"] for one in document["resources"]}
        paths = orjson.loads(await client.request("GET", "/openapi/v3"))["paths"]
        assert "apis/example.com/v1" in paths
        await client.patch(parts, "p", {"metadata": {"finalizers": ["example.com/x"]}}, "default")
        await client.delete(CUSTOMRESOURCEDEFINITIONS, "parts.example.com")
        await client.get(CUSTOMRESOURCEDEFINITIONS, "parts.example.com")
        await client.patch(parts, "p", {"metadata": {"finalizers": None}}, "default")
        for gone in (client.get(CUSTOMRESOURCEDEFINITIONS, "parts.example.com"), client.list(parts)):
            with pytest.raises(ApiError) as error:
                await gone
            assert error.value.status == 404

    run(act)


INVALID: Any = {
    "a missing field": ({}, ["spec.size: Required value"]),
    "another type": (
        {"size": "x"},
        ['spec.size: Invalid value: "string": spec.size in body must be of type integer: "string"'],
    ),
    "too small": ({"size": 0}, ["spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1"]),
    "too large": ({"size": 10}, ["spec.size: Invalid value: 10: spec.size in body should be less than or equal to 9"]),
    "not in the enum": (
        {"size": 1, "color": "green"},
        ['spec.color: Unsupported value: "green": supported values: "red", "blue"'],
    ),
    "a pattern": (
        {"size": 1, "names": ["a", "b"]},
        ["spec.names[1]: Invalid value: \"b\": spec.names[1] in body should match '^a'"],
    ),
    "twice in a set": ({"size": 1, "names": ["a", "a"]}, ['spec.names[1]: Duplicate value: "a"']),
    "neither integer nor string": (
        {"size": 1, "port": True},
        ['spec.port: Invalid value: "boolean": spec.port in body must be of type integer,string: "boolean"'],
    ),
    "a null": (
        {"size": 1, "color": None},
        ['spec.color: Invalid value: "null": spec.color in body must be of type string: "null"'],
    ),
    "nothing": ({"size": 1, "port": "http", "gone": None, "labels": {"a": "b"}}, []),
    "a map's value": (
        {"size": 1, "labels": {"a": 1}},
        ['spec.labels.a: Invalid value: "integer": spec.labels.a in body must be of type string: "integer"'],
    ),
}


@pytest.mark.parametrize(("spec", "texts"), INVALID.values(), ids=INVALID.keys())
def test_schemas_refuse_in_upstreams_words(spec: dict[str, Any], texts: list[str]) -> None:
    assert [error.message() for error in structural.validate({"spec": spec}, SCHEMA)] == texts


PATHS: Any = {
    ".spec.a": [1],
    "{.spec.a}": [1],
    ".spec['b.c']": [2],
    ".list[0].x": ["p"],
    ".list[-1].x": ["q"],
    ".list[*].x": ["p", "q"],
    '.list[?(@.t=="two")].x': ["q"],
    '.list[?(@.t!="two")].x': ["p"],
    '.list[?(@.none!="two")].x': [],
    ".list[?(@.n==8)].x": ["q"],
    ".list[-5].x": [],
    "spec.a": [1],
    ".nothing.here": [],
    ".spec.a.b": [],
}


@pytest.mark.parametrize(("path", "expected"), PATHS.items(), ids=PATHS.keys())
def test_json_paths(path: str, expected: list[Any]) -> None:
    obj = {"spec": {"a": 1, "b.c": 2}, "list": [{"t": "one", "x": "p"}, {"t": "two", "x": "q", "n": 8}]}
    assert jsonpath.find(obj, path) == expected


@pytest.mark.parametrize(
    "path",
    ["..a", "." + "[0,0]" * 40, ".a['b','c']", ".a[?(@..b==1)]", "{.a}{.b}", "{.a} b", ".a[", ".a[?(@.b==c)]"],
)
def test_a_path_whose_work_has_no_bound_or_that_cannot_be_read_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"supported|wanted|cannot read"):
        jsonpath.parse(path)


def test_a_definition_more_costs_the_same_however_many_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a definition serves is made once, and names are compared by index."""
    made = []
    real = customresources.served_versions

    def counted(crd: KubeObject, convert: Any) -> Any:
        made.append(crd["metadata"]["name"])
        return real(crd, convert)

    with in_process(tmp_path) as api:
        for number in range(60):
            assert api.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", _plain(number)).code == 201
            api("GET", "/version")
        monkeypatch.setattr(customresources, "served_versions", counted)
        api.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", _plain(60))
        assert api("GET", "/apis/example.org/v1/p60s").code == 200
    assert made == ["p60s.example.org"]


def _plain(number: int) -> Any:
    schema = {"openAPIV3Schema": {"type": "object"}}
    return {
        "metadata": {"name": f"p{number}s.example.org"},
        "spec": {
            "group": "example.org",
            "scope": "Cluster",
            "names": {"plural": f"p{number}s", "kind": f"P{number}"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }


CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def test_defaults_that_a_schema_gets_later_are_filled_in_on_reads(tmp_path: Path) -> None:
    with in_process(tmp_path) as api:
        crd = _plain(1)
        (version,) = crd["spec"]["versions"]
        version["schema"] = {"openAPIV3Schema": {"type": "object", "properties": {"size": {"type": "integer"}}}}
        assert api.create(CRDS, crd).code == 201
        api("GET", "/version")
        path = "/apis/example.org/v1/p1s"
        old = api.create(path, {"apiVersion": "example.org/v1", "kind": "P1", "metadata": {"name": "a"}}).body
        schema = {"size": {"type": "integer", "default": 3}}
        patch = [{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema/properties", "value": schema}]
        kind = {"Content_Type": "application/json-patch+json"}
        assert api("PATCH", f"{CRDS}/p1s.example.org", orjson.dumps(patch), **kind).code == 200
        api("GET", "/version")
        assert api("GET", f"{path}/a").body == old | {"size": 3}
        assert api("GET", path).body["items"] == [old | {"size": 3}]
        new = api.create(path, {"apiVersion": "example.org/v1", "kind": "P1", "metadata": {"name": "b"}}).body
        assert new["size"] == 3
        assert "size" not in old


def test_only_the_deletion_of_a_definition_has_a_finalizer(tmp_path: Path) -> None:
    with in_process(tmp_path) as api:
        api.create(CRDS, _plain(2))
        api("GET", "/version")
        assert "finalizers" not in api("GET", f"{CRDS}/p2s.example.org").body["metadata"]
        thing = {"apiVersion": "example.org/v1", "kind": "P2", "metadata": {"name": "a", "finalizers": ["x.io/y"]}}
        assert api.create("/apis/example.org/v1/p2s", thing).code == 201
        deleted = api("DELETE", f"{CRDS}/p2s.example.org").body
        assert deleted["metadata"]["finalizers"] == ["customresourcecleanup.apiextensions.k8s.io"]
        terminating = deleted["status"]["conditions"][-1]
        assert (terminating["type"], terminating["status"]) == ("Terminating", "True")
        assert terminating["reason"] == "InstanceDeletionPending"


def test_an_object_of_another_kind_is_refused(tmp_path: Path) -> None:
    with in_process(tmp_path) as api:
        api.create(CRDS, _plain(3))
        api("GET", "/version")
        other = {"apiVersion": "example.org/v1", "kind": "Other", "metadata": {"name": "a"}}
        answer = api.create("/apis/example.org/v1/p3s", other)
        assert (answer.code, answer.body["message"]) == (
            422,
            'P3.example.org "a" is invalid: kind: Invalid value: "Other": must be P3',
        )
