"""A write that says the same in other words changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from tests.fuzz.apiserver.in_process import InProcess, in_process

DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
PODS = "/api/v1/namespaces/default/pods"
MERGE = "application/merge-patch+json"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with in_process(tmp_path_factory.mktemp("apiserver")) as running:
        account = {"metadata": {"name": "default"}}
        assert running.create("/api/v1/namespaces/default/serviceaccounts", account).code == 201
        yield running


def deployment(cpu: Any, **spec: Any) -> dict[str, Any]:
    container = {"name": "a", "image": "x", "resources": {"requests": {"cpu": cpu}}}
    labels = {"app": "a"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container], **spec}}
    return {"metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": labels}, "template": template}}


def test_a_write_that_changes_no_value_makes_no_revision(api: InProcess) -> None:
    first = api.create(DEPLOYMENTS, deployment("100m")).body["metadata"]
    for same in (deployment(0.1), deployment("0.1", hostPID=False, tolerations=[]), deployment("100m", nodeName=None)):
        answer = api("PUT", f"{DEPLOYMENTS}/web", orjson.dumps(same))
        assert answer.code == 200, answer.body
        assert answer.body["metadata"]["resourceVersion"] == first["resourceVersion"]
        assert answer.body["metadata"]["generation"] == 1


def test_patches_are_canonical_too(api: InProcess) -> None:
    made = api.create(DEPLOYMENTS, deployment("1") | {"metadata": {"name": "patched"}}).body
    patch = {"spec": {"template": {"spec": {"hostIPC": False, "nodeSelector": {}}}}}
    answer = api("PATCH", f"{DEPLOYMENTS}/patched", orjson.dumps(patch), Content_Type=MERGE)
    assert answer.body == made


def test_what_is_always_written_is_there_before_validation(api: InProcess) -> None:
    """An immutable field may be said in other words."""
    reference = {"resource": "limits.cpu", "containerName": "a"}
    env = [{"name": "CPU", "valueFrom": {"resourceFieldRef": reference}}]
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "x", "env": env}]}}
    made = api.create(PODS, pod)
    assert made.code == 201, made.body
    kept = made.body["spec"]["containers"][0]["env"][0]["valueFrom"]["resourceFieldRef"]
    assert kept == reference | {"divisor": "0"}
    again = made.body
    del again["spec"]["containers"][0]["env"][0]["valueFrom"]["resourceFieldRef"]["divisor"]
    answer = api("PUT", f"{PODS}/p", orjson.dumps(again))
    assert (answer.code, answer.body["metadata"]) == (200, again["metadata"])


def test_host_ports_are_defaulted_in_pods_and_not_in_templates(api: InProcess) -> None:
    ports = [{"containerPort": 80}]
    spec = {"hostNetwork": True, "containers": [{"name": "a", "image": "x", "ports": ports}]}
    pod = api.create(PODS, {"metadata": {"name": "host"}, "spec": spec}).body
    assert pod["spec"]["containers"][0]["ports"][0]["hostPort"] == 80
    made = deployment("1") | {"metadata": {"name": "host"}}
    made["spec"]["template"]["spec"] = spec
    template = api.create(DEPLOYMENTS, made).body["spec"]["template"]
    assert "hostPort" not in template["spec"]["containers"][0]["ports"][0]


def test_metadata_of_custom_objects_is_canonical(api: InProcess) -> None:
    names = {"plural": "things", "singular": "thing", "kind": "Thing"}
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    spec = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]}
    crd = {"metadata": {"name": "things.example.com"}, "spec": spec}
    assert api.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd).code == 201
    thing = {
        "apiVersion": "example.com/v1",
        "kind": "Thing",
        "metadata": {"name": "t", "labels": {}, "annotations": None},
        "spec": {"empty": [], "zero": 0},
    }
    answer = api.create("/apis/example.com/v1/namespaces/default/things", thing)
    assert answer.code == 201, answer.body
    assert answer.body["spec"] == {"empty": [], "zero": 0}
    assert not {"labels", "annotations"} & answer.body["metadata"].keys()


def test_a_service_without_its_address_is_the_same(api: InProcess) -> None:
    service = {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}], "selector": {"app": "web"}}}
    made = api.create("/api/v1/namespaces/default/services", service).body
    again = api("PUT", "/api/v1/namespaces/default/services/web", orjson.dumps(service)).body
    assert again == made
