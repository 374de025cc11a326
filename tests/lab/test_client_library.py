"""The official Python client, unmodified, on a real lab: typed objects, watch, exec, port-forward, logs, errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes import client, config, dynamic, stream, watch

from kubewire.lab.handle import RunningLab
from tests.lab.kubewire_cli import until

pytestmark = pytest.mark.lab


@pytest.fixture
def api(running_lab: RunningLab) -> Any:
    return config.new_client_from_config(str(running_lab.kubeconfig))


@pytest.fixture
def pod(api: Any) -> Iterator[Any]:
    core = client.CoreV1Api(api)
    container = client.V1Container(
        name="web", image="registry.k8s.io/e2e-test-images/agnhost:2.53", args=["netexec", "--http-port=8080"]
    )
    body = client.V1Pod(
        metadata=client.V1ObjectMeta(name="library"),
        spec=client.V1PodSpec(containers=[container], termination_grace_period_seconds=0),
    )
    core.create_namespaced_pod("default", body)
    watching = watch.Watch()
    found = None
    for event in watching.stream(core.list_namespaced_pod, "default", timeout_seconds=30):
        found = event["object"]
        if found.metadata.name == "library" and any(state.ready for state in found.status.container_statuses or []):
            watching.stop()
    yield found
    core.delete_namespaced_pod("library", "default")


def test_exec_over_websocket_returns_output(api: Any, pod: Any) -> None:
    core = client.CoreV1Api(api)
    answer = stream.stream(
        core.connect_get_namespaced_pod_exec,
        "library",
        "default",
        command=["sh", "-c", "hostname; cat /etc/resolv.conf"],
        stderr=True,
        stdin=False,
        stdout=True,
        tty=False,
    )
    assert answer.splitlines()[0] == "library"
    assert "nameserver 10.96.0.10" in answer


def test_logs_and_typed_status(api: Any, pod: Any) -> None:
    core = client.CoreV1Api(api)
    assert pod.status.pod_ip.startswith("10.244.")
    until(lambda: "Started HTTP server on port 8080" in log(core), "the server says that it listens")


def log(core: Any) -> str:
    return str(core.read_namespaced_pod_log("library", "default"))


def test_errors_are_typed(api: Any) -> None:
    with pytest.raises(client.ApiException) as caught:
        client.CoreV1Api(api).read_namespaced_pod("nope", "default")
    assert (caught.value.status, caught.value.reason) == (404, "Not Found")


def test_the_dynamic_client_finds_custom_resources_by_discovery(api: Any) -> None:
    extensions = client.ApiextensionsV1Api(api)
    names = {"plural": "probes", "singular": "probe", "kind": "Probe"}
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema}
    body = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "probes.kubewire.dev"},
        "spec": {"group": "kubewire.dev", "scope": "Namespaced", "names": names, "versions": [version]},
    }
    extensions.create_custom_resource_definition(body)
    try:
        resources = dynamic.DynamicClient(api).resources.get(api_version="kubewire.dev/v1", kind="Probe")
        made = {"apiVersion": "kubewire.dev/v1", "kind": "Probe", "metadata": {"name": "one"}, "spec": {"port": 80}}
        resources.create(body=made, namespace="default")
        assert resources.get(name="one", namespace="default").spec.port == 80
    finally:
        extensions.delete_custom_resource_definition("probes.kubewire.dev")
