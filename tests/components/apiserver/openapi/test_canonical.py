"""An object has one form, however a client says it."""

from __future__ import annotations

from typing import Any

import pytest

from kubewire.components.apiserver import openapi


def canonical(kind: str, obj: dict[str, Any], group: str = "") -> dict[str, Any]:
    decoded = openapi.decode(obj, group, "v1", kind)
    assert (decoded.error, decoded.unknown) == ("", ())
    openapi.complete(obj, group, "v1", kind)
    return obj


def container(**fields: Any) -> dict[str, Any]:
    return {"name": "a", "resources": {}, **fields}


POD_SPECS = [
    pytest.param({"hostPID": False, "hostNetwork": True}, {"hostNetwork": True}, id="false is omitted"),
    pytest.param({"enableServiceLinks": False}, {"enableServiceLinks": False}, id="a pointer's false stays"),
    pytest.param({"nodeName": "", "priority": 0}, {"priority": 0}, id="an empty text, and a pointer's zero"),
    pytest.param({"dnsPolicy": None, "volumes": None}, {}, id="null is nothing"),
    pytest.param({"nodeSelector": {}, "tolerations": []}, {}, id="empty lists and maps"),
    pytest.param({"securityContext": {}, "affinity": {}}, {"securityContext": {}, "affinity": {}}, id="empty objects"),
    pytest.param(
        {"containers": [{"name": "a", "resources": {"limits": {"cpu": 0.1, "memory": "1024Mi"}}}]},
        {"containers": [container(resources={"limits": {"cpu": "100m", "memory": "1Gi"}})]},
        id="quantities",
    ),
    pytest.param(
        {"volumes": [{"name": "v", "emptyDir": {"sizeLimit": 0}}]},
        {"volumes": [{"name": "v", "emptyDir": {"sizeLimit": "0"}}]},
        id="a pointer's zero quantity",
    ),
    pytest.param(
        {"containers": [{"name": "a", "env": [{"name": "e", "value": ""}], "command": []}]},
        {"containers": [container(env=[{"name": "e"}])]},
        id="inside lists",
    ),
    pytest.param(
        {"containers": [{"env": [{"valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}]}]},
        {"containers": [container(
            name="", env=[{"name": "", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "0"}}}]
        )]},
        id="what is always written",
    ),
    pytest.param({"nodeSelector": {"a": None}}, {"nodeSelector": {"a": ""}}, id="null in a map"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "kept"), POD_SPECS)
def test_a_pod_spec_is_kept_as_go_writes_it(given: dict[str, Any], kept: dict[str, Any]) -> None:
    assert canonical("Pod", {"spec": given})["spec"] == {"containers": None, **kept}


KINDS = [
    pytest.param("", "Service", {"spec": None}, {"spec": {}, "status": {"loadBalancer": {}}}, id="structs are written"),
    pytest.param("rbac.authorization.k8s.io", "Role", {"rules": []}, {"rules": None}, id="an empty list is null"),
    pytest.param("", "ConfigMap", {"data": {}, "immutable": False}, {"immutable": False}, id="an empty ConfigMap"),
    pytest.param("", "ConfigMap", {"data": {"a": ""}}, {"data": {"a": ""}}, id="empty values of maps stay"),
    pytest.param("", "Secret", {"data": {"a": "Yg\n=="}}, {"data": {"a": "Yg=="}}, id="base64 on several lines"),
    pytest.param(
        "coordination.k8s.io",
        "Lease",
        {"spec": {"renewTime": "2026-01-01T02:00:00+01:00", "leaseTransitions": 0}},
        {"spec": {"renewTime": "2026-01-01T01:00:00.000000Z", "leaseTransitions": 0}},
        id="a time with microseconds in another zone",
    ),
    pytest.param(
        "apps",
        "ReplicaSet",
        {"spec": {"selector": {}, "replicas": 0}, "status": {"readyReplicas": 0}},
        {
            "spec": {
                "selector": {},
                "replicas": 0,
                "template": {"metadata": {}, "spec": {"containers": None}},
            },
            "status": {"replicas": 0},
        },
        id="counts of a status",
    ),
]


@pytest.mark.parametrize(("group", "kind", "given", "kept"), KINDS)
def test_an_object_is_kept_as_go_writes_it(group: str, kind: str, given: dict[str, Any], kept: dict[str, Any]) -> None:
    assert canonical(kind, given, group) == {"metadata": {}, **kept}


def test_times_are_in_utc_and_have_seconds() -> None:
    metadata = {"creationTimestamp": "2026-01-01T00:30:00.75+01:00", "labels": {}, "generation": 0}
    assert openapi.decode_metadata(metadata).error == ""
    assert metadata == {"creationTimestamp": "2025-12-31T23:30:00Z"}


@pytest.mark.parametrize("group_kind", [("", "Pod"), ("apps", "Deployment"), ("", "Node")])
def test_the_canonical_form_of_a_canonical_form_is_the_same(group_kind: tuple[str, str]) -> None:
    group, kind = group_kind
    once = canonical(kind, {"spec": {}}, group)
    again = canonical(kind, canonical(kind, {"spec": {}}, group), group)
    assert again == once


def test_unknown_fields_have_paths_with_indexes_and_are_dropped() -> None:
    pod = {
        "kind": "Pod",
        "foo": 1,
        "metadata": {"labels": {"anything": "goes"}, "lables": {}},
        "spec": {"containers": [{"name": "a"}, {"name": "b", "image": "x", "porst": []}], "nodeSelector": {"a": "b"}},
    }
    unknown = openapi.decode(pod, "", "v1", "Pod").unknown
    assert unknown == ("foo", "metadata.lables", "spec.containers[1].porst")
    assert pod["spec"]["containers"] == [{"name": "a"}, {"name": "b", "image": "x"}]  # type: ignore[index]


def test_unknown_fields_in_maps_of_objects_have_their_keys() -> None:
    schema = {"properties": {"size": {"typ": "integer"}}, "additionalProperties": {"typo": 1}}
    version = {"name": "v1", "schema": {"openAPIV3Schema": schema}}
    crd = {"spec": {"versions": [version]}}
    unknown = openapi.decode(crd, "apiextensions.k8s.io", "v1", "CustomResourceDefinition").unknown
    start = "spec.versions[0].schema.openAPIV3Schema"
    assert unknown == (f"{start}.properties.size.typ", f"{start}.additionalProperties.typo")


def test_kinds_that_are_not_built_in_stay_as_they_are() -> None:
    obj = {"spec": {"cpu": 0.1, "empty": []}}
    assert openapi.decode(obj, "example.com", "v1", "Widget") == openapi.decode({}, "", "v1", "Pod")
    openapi.complete(obj, "example.com", "v1", "Widget")
    assert obj == {"spec": {"cpu": 0.1, "empty": []}}
