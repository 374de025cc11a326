"""Unknown fields, wrong types and merge keys, as Go's decoder and types have them."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from kubewire.components.apiserver import openapi


def test_kinds_that_are_not_built_in_have_no_opinion() -> None:
    assert openapi.type_errors({"spec": 1}, "example.com", "v1", "Widget") == []


GO = "json: cannot unmarshal "
TYPE_ERRORS = [
    pytest.param(
        "Service",
        {"spec": {"ports": [{"port": "80"}]}},
        GO + "string into Go struct field ServicePort.spec.ports.port of type int32",
        id="a port as text",
    ),
    pytest.param(
        "Service",
        {"spec": {"type": 1}},
        GO + "number into Go struct field ServiceSpec.spec.type of type v1.ServiceType",
        id="a number for a named string",
    ),
    pytest.param(
        "Service",
        {"spec": {"ports": [{"port": 1.5}]}},
        GO + "number 1.5 into Go struct field ServicePort.spec.ports.port of type int32",
        id="half a port",
    ),
    pytest.param(
        "Service",
        {"spec": {"ports": [{"port": 2**31}]}},
        GO + "number 2147483648 into Go struct field ServicePort.spec.ports.port of type int32",
        id="more than 32 bits",
    ),
    pytest.param("Pod", {"spec": "x"}, GO + "string into Go struct field Pod.spec of type v1.PodSpec", id="no object"),
    pytest.param(
        "Pod",
        {"spec": {"containers": {}}},
        GO + "object into Go struct field PodSpec.spec.containers of type []v1.Container",
        id="no list",
    ),
    pytest.param(
        "Pod",
        {"spec": {"nodeSelector": {"a": True}}},
        GO + "bool into Go struct field PodSpec.spec.nodeSelector of type string",
        id="a label that is no text",
    ),
    pytest.param(
        "Pod",
        {"spec": {"nodeSelector": ["a"]}},
        GO + "array into Go struct field PodSpec.spec.nodeSelector of type map[string]string",
        id="no map",
    ),
    pytest.param(
        "Pod",
        {"spec": {"hostNetwork": "yes"}},
        GO + "string into Go struct field PodSpec.spec.hostNetwork of type bool",
        id="no boolean",
    ),
    pytest.param(
        "Pod",
        {"spec": {"containers": [{"resources": {"limits": {"cpu": "lots"}}}]}},
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        id="no quantity",
    ),
    pytest.param(
        "PersistentVolumeClaim",
        {"spec": {"accessModes": [1]}},
        GO + "number into Go struct field PersistentVolumeClaimSpec.spec.accessModes of type "
        "v1.PersistentVolumeAccessMode",
        id="no text in a list",
    ),
    pytest.param(
        "Node", {"status": {"images": [{"names": ["a"], "sizeBytes": 5_000_000_000}]}}, None, id="an image of 5 GB"
    ),
    pytest.param("Secret", {"data": {"a": "not base64!"}}, "illegal base64 data at input byte 3", id="no base64"),
    pytest.param("Service", {"spec": {"ports": [{"targetPort": "http"}, {"targetPort": 80}]}}, None, id="either type"),
    pytest.param("Pod", {"metadata": {"creationTimestamp": None}, "spec": None}, None, id="null is absent"),
    pytest.param("Lease", {"spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}}, None, id="microseconds"),
]


@pytest.mark.parametrize(("kind", "obj", "text"), TYPE_ERRORS)
def test_type_errors(kind: str, obj: dict[str, Any], text: str | None) -> None:
    group = "coordination.k8s.io" if kind == "Lease" else ""
    assert openapi.type_errors(copy.deepcopy(obj), group, "v1", kind) == ([text] if text else [])
    assert openapi.decode(obj, group, "v1", kind).error == (text or "")


@pytest.mark.parametrize(
    ("group", "kind", "path", "key"),
    [
        pytest.param("", "Pod", "spec.containers", "name", id="containers by name"),
        pytest.param("", "Pod", "spec.containers.ports", "containerPort", id="container ports by number"),
        pytest.param("", "Service", "spec.ports", "port", id="service ports by number"),
        pytest.param("apps", "Deployment", "spec.template.spec.volumes", "name", id="inside templates"),
        pytest.param("", "Pod", "metadata.finalizers", "set", id="finalizers as a set"),
        pytest.param("", "Pod", "spec.tolerations", None, id="tolerations are replaced"),
        pytest.param("", "Endpoints", "subsets", None, id="subsets are replaced"),
        pytest.param("apps", "Deployment", "spec.strategy", None, id="what is no list has no key"),
        pytest.param("", "Pod", "spec.nothing.there", None, id="unknown paths have none"),
        pytest.param("example.com", "Widget", "spec.containers", None, id="custom kinds have none"),
    ],
)
def test_merge_keys(group: str, kind: str, path: str, key: str | None) -> None:
    assert openapi.merge_key(group, "v1", kind, tuple(path.split("."))) == key


def test_server_side_apply_tells_ports_apart_by_protocol() -> None:
    assert openapi.list_map_keys("", "v1", "Service", ("spec", "ports")) == ("port", "protocol")
    assert openapi.list_map_keys("", "v1", "Pod", ("metadata", "finalizers")) == ()
    endpoints = ("endpoints", "addresses")
    assert openapi.list_map_keys("discovery.k8s.io", "v1", "EndpointSlice", endpoints) == ()
    assert openapi.list_map_keys("", "v1", "Pod", ("spec", "tolerations")) is None
