"""What people type, with the kubectl of the machine (and that of Debian 12 where KUBECTL_DEBIAN12 names it)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kubewire.components.kubeapi.client import Client
from kubewire.components.kubeapi.resources import NODES
from tests.components.apiserver.conftest import Run
from tests.components.apiserver.running import RunningApiServer

Shell = Callable[..., str]
PROGRAMS = [shutil.which("kubectl"), os.environ.get("KUBECTL_DEBIAN12")]
MANIFEST = """
apiVersion: v1
kind: Service
metadata: {name: my-service}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: http}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: nginx, ports: [{name: http, containerPort: 80}]}]}
"""


@pytest.fixture(params=[*filter(None, PROGRAMS), *([] if any(PROGRAMS) else [None])])
def shell(request: pytest.FixtureRequest, server: RunningApiServer, tmp_path: Path) -> Shell:
    """shell("get pods | head -1"): `kubectl` is put in front; fails the test with stderr on an error."""
    if request.param is None:
        pytest.skip("kubectl is not installed")

    def call(line: str, stdin: str = "", *, fails: bool = False) -> str:
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", f"{request.param} --cache-dir {tmp_path} {line}"],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            env=os.environ | {"KUBECONFIG": str(server.kubeconfig)},
        )
        assert (done.returncode != 0) is fails, done.stdout + done.stderr
        return done.stderr if fails else done.stdout

    return call


def test_services_of_all_namespaces(shell: Shell) -> None:
    lines = shell("get svc -A -o wide").splitlines()
    assert lines[0].split() == ["NAMESPACE", "NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE", "SELECTOR"]
    assert re.match(r"default +kubernetes +ClusterIP +10\.96\.0\.1 +<none> +443/TCP +\S+ +<none>", lines[1])


def test_endpointslices_of_all_namespaces(shell: Shell) -> None:
    assert re.search(r"default +kubernetes +IPv4 +\d+ +172\.18\.0\.2 ", shell("get endpointslices -A"))


def test_pods_through_awk(shell: Shell) -> None:
    shell("run p1 --image=busybox:1.36 --restart=Never -- sleep 1")
    text = shell("get pods -A -o wide | awk '{print $1, $2, $6, $7}'")
    assert text.splitlines()[0] == "NAMESPACE NAME AGE IP"
    assert "default p1 " in text
    shell("delete pod p1")


def test_pod_cidrs_by_jsonpath(shell: Shell, run: Run) -> None:
    async def act(client: Client) -> None:
        names = {item["metadata"]["name"] for item in (await client.list(NODES)).items}
        if "worker-1" not in names:
            spec = {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"]}
            node: Any = {"metadata": {"name": "worker-1"}, "spec": spec}
            await client.create(NODES, node)

    run(act)
    line = """get node -o jsonpath='{range .items[*]}{.metadata.name}: podCIDR={.spec.podCIDR}{"\\n"}{end}'"""
    assert shell(line) == "worker-1: podCIDR=10.244.1.0/24\n"
    assert "PodCIDR:                      10.244.1.0/24" in shell("describe node worker-1")


def test_apply_change_scale_and_delete(shell: Shell) -> None:
    assert shell("apply -f -", MANIFEST).splitlines() == ["service/my-service created", "deployment.apps/web created"]
    again = shell("apply -f -", MANIFEST).splitlines()
    assert again == ["service/my-service unchanged", "deployment.apps/web unchanged"]
    changed = MANIFEST.replace("port: 80,", "port: 8080,").replace("image: nginx", "image: nginx:2")
    assert shell("apply -f -", changed).splitlines() == [
        "service/my-service configured",
        "deployment.apps/web configured",
    ]
    assert shell("get svc my-service -o jsonpath={.spec.ports[*].port}") == "8080"
    assert "deployment.apps/web scaled" in shell("scale deployment web --replicas=5")
    assert shell("get deploy web -o jsonpath={.spec.replicas}") == "5"
    assert "web" in shell("describe deployment web")
    assert shell("get all").count("web") >= 1
    assert "deleted" in shell("delete -f -", MANIFEST)


def test_errors_read_as_upstreams(shell: Shell) -> None:
    assert shell("get pod nope", fails=True) == 'Error from server (NotFound): pods "nope" not found\n'
    text = shell("create configmap c -n nowhere", fails=True)
    assert 'namespaces "nowhere" not found' in text
    bad = MANIFEST.replace("port: 80,", "port: 0,")
    assert "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive" in shell(
        "create -f - --validate=false", bad.partition("---")[0], fails=True
    )
    unknown = shell("create -f -", MANIFEST.partition("---")[0].replace("selector:", "slector:"), fails=True)
    assert "slector" in unknown


def test_label_patch_and_watch(shell: Shell) -> None:
    shell("create configmap w --from-literal=a=1")
    shell("label configmap w x=y")
    text = shell("get configmap -l x=y -w --request-timeout=1s 2>/dev/null || true")
    assert re.search(r"^w +1 ", text, re.M)
    shell("delete configmap w")


def test_versions_and_explain(shell: Shell) -> None:
    assert "v1.36.2+kubewire" in shell("version 2>/dev/null")
    assert "clusterIP" in shell("explain service.spec")
    assert "endpointslices" in shell("api-resources")
