"""agnhost webhook and crd-conversion-webhook answer reviews as upstream's tests expect."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kubewire.components.agnhost.webhook import admissions, conversion
from tests.components.apiserver.running import Authority

POD = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}


def pod(**changes: Any) -> dict[str, Any]:
    return {"object": {**POD, **changes}}


def configmap(operation: str, **data: str) -> dict[str, Any]:
    obj = {"metadata": {"name": "c"}, "data": data}
    return {"operation": operation, "object": None if operation == "DELETE" else obj, "oldObject": obj}


DENIED: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "everything": ("/always-deny", pod(), {"message": "this webhook denies all requests"}),
    "a pod with a label": ("/pods", pod(metadata={"labels": {"webhook-e2e-test": "webhook-disallow"}}), {"message": "the pod contains unwanted label;"}),
    "a pod with a container": ("/pods", pod(spec={"containers": [{"name": "webhook-disallow"}]}), {"message": "the pod contains unwanted container name;"}),
    "attaching": ("/pods/attach", {"name": "to-be-attached-pod", "object": {"stdin": True, "container": "container1"}}, {"message": "attaching to pod 'to-be-attached-pod' is not allowed"}),
    "a configmap": ("/configmaps", configmap("CREATE", **{"webhook-e2e-test": "webhook-disallow"}), {"reason": "the configmap contains unwanted key and value"}),
    "the deletion of a configmap": ("/configmaps", configmap("DELETE", **{"webhook-e2e-test": "webhook-nondeletable"}), {"reason": "the configmap cannot be deleted because it contains unwanted key and value"}),
    "a custom resource": ("/custom-resource", configmap("UPDATE", **{"webhook-e2e-test": "webhook-disallow"}), {"reason": "the custom resource contains unwanted data"}),
    "a definition": ("/crd", {"object": {"metadata": {"labels": {"webhook-e2e-test": "webhook-disallow"}}}}, {"message": "the crd contains unwanted label"}),
    "a sidecar without an image": ("/mutating-pods-sidecar", pod(), {"status": "Failure", "message": "No image specified by the sidecar-image parameter", "code": 500}),
}  # fmt: skip


@pytest.mark.parametrize("case", DENIED)
def test_it_denies(case: str) -> None:
    path, request, status = DENIED[case]
    assert admissions()[path](request) == {"allowed": False, "status": status}


PATCHES: dict[str, tuple[str, dict[str, Any], list[tuple[str, str, Any]]]] = {
    "the first label": ("/add-label", pod(), [("add", "/metadata/labels", {"added-label": "yes"})]),
    "another label": ("/add-label", pod(metadata={"labels": {"a": "b"}}), [("add", "/metadata/labels/added-label", "yes")]),
    "an init container": ("/mutating-pods", pod(metadata={"name": "webhook-to-be-mutated"}), [("add", "/spec/initContainers", [{"image": "webhook-added-image", "name": "webhook-added-init-container", "resources": {}}])]),
    "no init container for others": ("/mutating-pods", pod(), []),
    "a sidecar": ("/mutating-pods-sidecar", pod(), [("add", "/spec/containers/-", {"image": "side", "name": "webhook-added-sidecar", "resources": {}})]),
    "the first stage": ("/mutating-configmaps", configmap("CREATE", **{"mutation-start": "yes"}), [("add", "/data/mutation-stage-1", "yes")]),
    "the second stage": ("/mutating-custom-resource", configmap("CREATE", **{"mutation-start": "yes", "mutation-stage-1": "yes"}), [("add", "/data/mutation-stage-2", "yes")]),
}  # fmt: skip


@pytest.mark.parametrize("case", PATCHES)
def test_it_adds(case: str) -> None:
    path, request, expected = PATCHES[case]
    response = admissions("side")[path](request)
    operations = json.loads(base64.b64decode(response.get("patch", "W10=")))
    assert [(item["op"], item["path"], item["value"]) for item in operations] == expected


def stable(version: str, **fields: str) -> dict[str, Any]:
    return {"apiVersion": f"stable.example.com/{version}", "kind": "E", "metadata": {"name": "e"}, **fields}


CONVERSIONS: dict[str, tuple[dict[str, Any], str, dict[str, Any] | str]] = {
    "v1 to v2": (stable("v1", hostPort="h:1"), "v2", stable("v2", host="h", port="1")),
    "v2 to v1": (stable("v2", host="h", port="1"), "v1", stable("v1", hostPort="h:1")),
    "no fields": (stable("v1"), "v2", stable("v2")),
    "a wrong value": (stable("v1", hostPort="h"), "v2", "invalid hostPort value `h`"),
    "an unknown version": (stable("v1"), "v3", 'unexpected conversion version "stable.example.com/v3"'),
}  # fmt: skip


@pytest.mark.parametrize("case", CONVERSIONS)
def test_it_converts(case: str) -> None:
    obj, version, expected = CONVERSIONS[case]
    response = conversion({"desiredAPIVersion": f"stable.example.com/{version}", "objects": [obj]})
    if isinstance(expected, str):
        assert response == {"result": {"status": "Failure", "message": expected}}
    else:
        assert response == {"convertedObjects": [expected], "result": {"status": "Success"}}


@pytest.mark.parametrize(("command", "path"), [("webhook", "/always-deny"), ("crd-conversion-webhook", "/crdconvert")])
def test_it_answers_over_https(tmp_path: Path, command: str, path: str) -> None:
    authority = Authority(tmp_path)
    issued = authority.issue("webhook", addresses=("127.0.0.1",))
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    argv = [sys.executable, "-m", "kubewire.components.agnhost", command, f"--port={port}", "--alsologtostderr", "-v=4"]
    argv += [f"--tls-cert-file={issued.certificate}", f"--tls-private-key-file={issued.key}"]
    process = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    context = ssl.create_default_context(cafile=str(authority.certificate))

    def ask(method: str, where: str, body: str | None = None) -> bytes:
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=context)
        connection.request(method, where, body, {"Content-Type": "application/json"})
        return connection.getresponse().read()

    try:
        deadline = time.monotonic() + 20
        ready = b""
        while ready != b"ok" and time.monotonic() < deadline:
            try:
                ready = ask("GET", "/readyz")
            except ConnectionError:
                time.sleep(0.05)
        request = {"uid": "u", "object": POD, "desiredAPIVersion": "stable.example.com/v2", "objects": []}
        review = {"kind": "Review", "apiVersion": "x/v1", "request": request}
        answer = json.loads(ask("POST", path, json.dumps(review)))
        assert (answer["kind"], answer["response"]["uid"]) == ("Review", "u")
    finally:
        process.kill()
        process.wait()
