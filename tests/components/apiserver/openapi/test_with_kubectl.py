"""The real kubectl reads the documents: explain, validation by the server, merge keys in its patches."""

from __future__ import annotations

import json
from typing import Any

from tests.lab.kubectls import installed, version

#: Older ones check fields themselves, against OpenAPI v2; since 1.27 the server does, and says so.
SERVER_CHECKS = version(installed()) >= (1, 27)

DEPLOYMENT: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "explained"},
    "spec": {
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]},
        },
    },
}


def test_explain_shows_fields_and_types(kubectl: Any) -> None:
    done = kubectl("explain", "service.spec.ports")
    assert done.returncode == 0, done.stderr
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert "port\t<integer> -required-" in lines
    assert ("targetPort\t<IntOrString>" if SERVER_CHECKS else "targetPort\t<string>") in lines


def test_unknown_fields_are_refused(kubectl: Any) -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"foo": 1}}
    done = kubectl("create", "-f", "-", stdin=json.dumps(service))
    by_server = (
        'Error from server (BadRequest): error when creating "STDIN": Service in version "v1" cannot be handled as a '
        'Service: strict decoding error: unknown field "spec.foo"\n'
    )
    by_client = 'ValidationError(Service.spec): unknown field "foo" in io.k8s.api.core.v1.ServiceSpec'
    assert done.stderr == by_server if SERVER_CHECKS else by_client in done.stderr


def test_wrong_types_are_refused(kubectl: Any) -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [{"port": "x"}]}}
    done = kubectl("create", "-f", "-", stdin=json.dumps(service))
    by_server = (
        'Error from server (BadRequest): error when creating "STDIN": Service in version "v1" cannot be handled as a '
        "Service: json: cannot unmarshal string into Go struct field ServicePort.spec.ports.port of type int32\n"
    )
    by_client = 'invalid type for io.k8s.api.core.v1.ServicePort.port: got "string", expected "integer"'
    assert done.stderr == by_server if SERVER_CHECKS else by_client in done.stderr


def test_apply_merges_containers_by_name(kubectl: Any) -> None:
    assert kubectl("apply", "-f", "-", stdin=json.dumps(DEPLOYMENT)).returncode == 0
    changed = json.loads(json.dumps(DEPLOYMENT))
    changed["spec"]["template"]["spec"]["containers"][1]["image"] = "z"
    done = kubectl("apply", "-f", "-", stdin=json.dumps(changed))
    assert done.stdout == "deployment.apps/explained configured\n", done.stderr
    images = kubectl("get", "deploy/explained", "-o", "jsonpath={.spec.template.spec.containers[*].image}")
    assert images.stdout == "x z"
    assert kubectl("apply", "-f", "-", stdin=json.dumps(changed)).stdout == "deployment.apps/explained unchanged\n"
