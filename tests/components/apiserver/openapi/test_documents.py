"""The OpenAPI documents: what kubectl looks for in them, in JSON and in gnostic's protobuf."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from typing import Any

import pytest

from kubewire.components.apiserver import openapi
from kubewire.components.apiserver.kinds import KINDS
from tests.components.apiserver.openapi.wire import fields, named

CRD: dict[str, Any] = {
    "metadata": {"name": "widgets.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget", "listKind": "WidgetList"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "properties": {
                                    "size": {"type": "integer", "minimum": 1, "default": 3},
                                    "port": {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}]},
                                },
                            }
                        },
                    }
                },
            },
            {"name": "v1alpha1", "served": False, "storage": False},
        ],
    },
}
CONTAINERS = {
    "x-kubernetes-list-map-keys": ["name"],
    "x-kubernetes-list-type": "map",
    "x-kubernetes-patch-merge-key": "name",
    "x-kubernetes-patch-strategy": "merge",
}


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*(references(inner) for inner in value.values()))
    if isinstance(value, list):
        return set().union(*(references(inner) for inner in value))
    return set()


def test_a_set_without_a_patch_strategy_says_that_it_is_one() -> None:
    schemas = openapi.v3("discovery.k8s.io/v1", KINDS, [])["components"]["schemas"]
    addresses = schemas["io.k8s.api.discovery.v1.Endpoint"]["properties"]["addresses"]
    del addresses["description"]
    assert addresses == {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}


GROUP_VERSIONS = sorted({spec.resource.api_version for spec in KINDS} | {"example.com/v1"})


@pytest.mark.parametrize("group_version", GROUP_VERSIONS)
def test_every_reference_of_v3_leads_somewhere(group_version: str) -> None:
    document = openapi.v3(group_version, KINDS, [CRD])
    schemas = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert references(document) <= schemas
    assert document["paths"]


def test_every_reference_of_v2_leads_somewhere() -> None:
    document = openapi.v2_json(KINDS, [CRD])
    assert references(document) <= {f"#/definitions/{name}" for name in document["definitions"]}


@pytest.mark.parametrize("spec", KINDS, ids=lambda spec: spec.resource.api_version + "/" + spec.resource.kind)
def test_every_kind_has_its_definition_and_its_paths(spec: Any) -> None:
    one = spec.resource
    document = openapi.v3(one.api_version, KINDS, [])
    wanted = {"group": one.group, "kind": one.kind, "version": one.version}
    schemas = document["components"]["schemas"].values()
    assert any(wanted in schema.get("x-kubernetes-group-version-kind", ()) for schema in schemas)
    scope = "/namespaces/{namespace}" if one.namespaced else ""
    root = f"/apis/{one.api_version}" if one.group else f"/api/{one.version}"
    patch = document["paths"][f"{root}{scope}/{one.plural}/{{name}}"]["patch"]
    assert patch["x-kubernetes-group-version-kind"] == wanted
    assert patch["x-kubernetes-action"] == "patch"
    assert {"dryRun", "fieldManager", "fieldValidation"} <= {one["name"] for one in patch["parameters"]}


def test_v3_says_how_lists_are_merged() -> None:
    pod = openapi.v3("v1", KINDS, [])["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]
    item = {"$ref": "#/components/schemas/io.k8s.api.core.v1.Container"}
    assert pod["properties"]["containers"] == {"type": "array", "items": item, **CONTAINERS}
    assert pod["required"] == ["containers"]


def test_custom_resources_have_no_strategic_merge_patch() -> None:
    paths = openapi.v3("example.com/v1", KINDS, [CRD])["paths"]
    item = "/apis/example.com/v1/namespaces/{namespace}/widgets/{name}"
    content = paths[item]["patch"]["requestBody"]["content"]
    assert sorted(content) == [
        "application/apply-patch+yaml",
        "application/json-patch+json",
        "application/merge-patch+json",
    ]
    assert f"{item}/status" in paths


def test_only_served_versions_of_a_definition_are_there() -> None:
    paths = openapi.v3_index(KINDS, [CRD])["paths"]
    assert "apis/example.com/v1" in paths
    assert "apis/example.com/v1alpha1" not in paths


def test_the_index_changes_with_a_definition_so_that_clients_read_again() -> None:
    before, after = openapi.v3_index(KINDS, []), openapi.v3_index(KINDS, [CRD])
    assert before["paths"]["api/v1"] != after["paths"]["api/v1"]
    assert openapi.v3_index(KINDS, []) == before


def test_v2_leaves_out_what_it_has_no_word_for() -> None:
    widget = openapi.v2_json(KINDS, [CRD])["definitions"]["com.example.v1.Widget"]
    assert widget["properties"]["spec"]["properties"] == {
        "size": {"type": "integer", "minimum": 1},
        "port": {"x-kubernetes-int-or-string": True},
    }


def test_v2_in_protobuf_says_the_same_as_in_json() -> None:
    document = fields(openapi.v2_protobuf(KINDS, [CRD]))
    assert document[1] == [b"2.0"]
    definitions = named(fields(_bytes(document[9][0]))[1])
    assert definitions.keys() == openapi.v2_json(KINDS, [CRD])["definitions"].keys()
    pod = fields(definitions["io.k8s.api.core.v1.PodSpec"])
    assert pod[19] == [b"containers"]
    containers = fields(named(fields(_bytes(pod[25][0]))[1])["containers"])
    extensions = {name: json.loads(_bytes(fields(value)[2][0])) for name, value in named(containers[31]).items()}
    assert extensions == CONTAINERS
    item = fields(_bytes(fields(_bytes(containers[23][0]))[1][0]))
    assert item[1] == [b"#/definitions/io.k8s.api.core.v1.Container"]


def test_v2_in_protobuf_has_the_paths() -> None:
    document = fields(openapi.v2_protobuf(KINDS, []))
    paths = named(fields(_bytes(document[8][0]))[2])
    assert paths.keys() == openapi.v2_json(KINDS, [])["paths"].keys()
    patch = fields(_bytes(fields(paths["/api/v1/namespaces/{namespace}/pods/{name}"])[8][0]))
    kind = named(patch[13])["x-kubernetes-group-version-kind"]
    assert json.loads(_bytes(fields(kind)[2][0])) == {"group": "", "kind": "Pod", "version": "v1"}


def test_v3_in_protobuf_says_the_same_as_in_json() -> None:
    document = fields(openapi.v3_protobuf("apps/v1", KINDS, []))
    assert document[1] == [b"3.0.0"]
    schemas = named(fields(_bytes(fields(_bytes(document[5][0]))[1][0]))[1])
    assert schemas.keys() == openapi.v3("apps/v1", KINDS, [])["components"]["schemas"].keys()
    spec = fields(_bytes(fields(schemas["io.k8s.api.apps.v1.DeploymentSpec"])[1][0]))
    assert [_bytes(one).decode() for one in spec[23]] == ["selector", "template"]
    replicas = fields(_bytes(fields(named(fields(_bytes(spec[31][0]))[1])["replicas"])[1][0]))
    assert (replicas[25], replicas[35]) == ([b"integer"], [b"int32"])


def _bytes(value: bytes | int) -> bytes:
    assert isinstance(value, bytes)
    return value


def test_importing_reads_nothing() -> None:
    code = (
        "import kubewire.components.apiserver.openapi as o, sys; from kubewire.components.apiserver.openapi import models; "
        "print(models.all_models.cache_info().currsize, 'kubewire.components.apiserver.openapi.document_v2' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "0 False\n"


PRESERVE = "x-kubernetes-preserve-unknown-fields"
UNTYPED: list[Any] = [
    pytest.param({"type": "string", "nullable": True}, {}, id="a nullable value"),
    pytest.param({"type": "object", "nullable": True, "properties": {"a": {}}}, {}, id="a nullable object"),
    pytest.param(
        {"type": "object", PRESERVE: True, "properties": {"a": {"type": "string"}}},
        {PRESERVE: True},
        id="an object with unknown fields",
    ),
    pytest.param({"type": "array", PRESERVE: True, "items": {}}, {PRESERVE: True}, id="a list of anything"),
    pytest.param(
        {"type": "object", "required": ["a", "b"], "properties": {"a": {"nullable": True}, "b": {"type": "string"}}},
        {"type": "object", "required": ["b"], "properties": {"a": {}, "b": {"type": "string"}}},
        id="nothing nullable is required",
    ),
]


@pytest.mark.parametrize(("given", "shown"), UNTYPED)
def test_v2_has_no_type_for_what_kubectl_would_refuse(given: dict[str, Any], shown: dict[str, Any]) -> None:
    crd = copy.deepcopy(CRD)
    for version in crd["spec"]["versions"]:
        version["schema"] = {"openAPIV3Schema": {"type": "object", "properties": {"spec": given}}}
    widget = openapi.v2_json(KINDS, [crd])["definitions"]["com.example.v1.Widget"]
    assert widget["properties"]["spec"] == shown


def test_v2_of_a_kind_with_any_fields_names_none() -> None:
    crd = copy.deepcopy(CRD)
    for version in crd["spec"]["versions"]:
        version["schema"] = {"openAPIV3Schema": {"type": "object", PRESERVE: True, "properties": {"spec": {}}}}
    widget = openapi.v2_json(KINDS, [crd])["definitions"]["com.example.v1.Widget"]
    assert widget.keys() == {"type", "x-kubernetes-group-version-kind"}
    v3 = openapi.v3("example.com/v1", KINDS, [crd])["components"]["schemas"]["com.example.v1.Widget"]
    assert "spec" in v3["properties"]
