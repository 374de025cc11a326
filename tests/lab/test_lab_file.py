"""What the keys of a lab file do, on one lab that has many of them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.kubewire_cli import ROOT, Cli

pytestmark = pytest.mark.lab

WEB = """\
apiVersion: v1
kind: Namespace
metadata: {name: mine}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: toys.example.com}
spec:
  group: example.com
  names: {kind: Toy, plural: toys}
  scope: Namespaced
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]
---
apiVersion: example.com/v1
kind: Toy
metadata: {name: bear, namespace: mine}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: mine}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: nginx, readinessProbe: {httpGet: {port: 80}, initialDelaySeconds: 2}}]}
"""
ONCE = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "once"},
    "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "busybox", "command": ["true"]}]},
}
OWN = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "own"},
    "spec": {"containers": [{"name": "c", "image": "example/team/app:3"}]},
}
COREFILE = """\
.:53 {
    ready
    health
    hosts {
        192.0.2.7 mine.example.com
    }
}
"""
#: Our kube-proxy as a program that the lab does not know.
STRANGER = f"""\
#!/bin/sh
echo "a stranger: $@" >&2
export PYTHONPATH={ROOT / "src"}
exec {sys.executable} -m kubewire.components.kube_proxy "$@"
"""
LAB: dict[str, Any] = {
    "topology": {"workers": 1},
    "kubeProxy": {"iptables": {"masqueradeAll": True}, "conntrack": {"tcpBeLiberal": True}, "oomScoreAdj": 0},
    "kubelet": {"maxPods": 20, "podPidsLimit": 100},
    "controllerManager": {"max-endpoints-per-slice": 1},
    "scheduler": {"v": 4},
    "dns": {"corefile": COREFILE},
    "images": {"example/*": {"entrypoint": ["/bin/sleep"], "cmd": ["1h"], "workingDir": "/srv"}},
    "manifests": ["web.yaml", ONCE, OWN],
    "components": [
        {
            "name": "hello",
            "command": ["/bin/sh", "-c", "echo $GREETING; exec sleep 1h"],
            "env": {"GREETING": "good day"},
            "nodes": "worker-*",
        },
        {"name": "once", "command": ["/bin/true"], "nodes": "control-plane"},
    ],
    "files": {"/etc/motd": "hello\n", "/run/app.conf": {"from": "app.conf", "nodes": "worker-*", "mode": "0640"}},
}


@pytest.fixture(scope="module")
def cli() -> Iterator[Cli]:
    """A lab of this file; `said` has what `up` wrote to stderr."""
    folder = Path(tempfile.mkdtemp(prefix="kw-"))
    own = Cli(folder)
    (folder / "web.yaml").write_text(WEB)
    (folder / "app.conf").write_text("port: 80\n")
    proxy = folder / "kube-proxy"
    proxy.write_text(STRANGER)
    proxy.chmod(0o755)
    replacing = {"name": "kube-proxy", "program": str(proxy), "nodes": "worker-1"}
    (folder / "lab.yaml").write_text(json.dumps(LAB | {"components": [*LAB["components"], replacing]}))
    done = own.run("up", "-f", str(folder / "lab.yaml"))
    (folder / "said").write_text(done.stderr)
    try:
        assert done.returncode == 0, done.stderr
        yield own
    finally:
        own.run("down")
        shutil.rmtree(folder, ignore_errors=True)


def on(cli: Cli, host: str, *command: str) -> str:
    return cli.run("node", host, "--", *command, stdin=subprocess.DEVNULL).stdout


def test_up_warns_of_upstreams_names_that_have_no_effect(cli: Cli) -> None:
    said = (cli.folder / "said").read_text()
    assert "kubewire: warning: kubeProxy.oomScoreAdj has no effect: it is upstream's, and nothing here reads it" in said
    assert "kubewire: warning: kubelet.podPidsLimit has no effect" in said


def test_kube_proxy_works_by_the_fields_of_the_lab_file(cli: Cli) -> None:
    assert on(cli, "worker-1", "cat", "/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal") == "1\n"
    to_kubernetes = [
        rule
        for rule in on(cli, "worker-1", "iptables-save", "-t", "nat").splitlines()
        if "kubernetes:https cluster IP" in rule
    ]
    assert any("KUBE-MARK-MASQ" in rule and "! -s" not in rule for rule in to_kubernetes), to_kubernetes


def test_a_program_of_the_users_own_runs_in_place_of_a_component(cli: Cli) -> None:
    logs = cli.state / "default/logs"
    flags = "--config=/var/lib/kube-proxy/config.conf --hostname-override=worker-1"
    assert (logs / "kube-proxy@worker-1.log").read_text().startswith(f"a stranger: {flags}\n")
    assert "a stranger" not in (logs / "kube-proxy@control-plane.log").read_text()
    assert "KUBE-SERVICES" in on(cli, "worker-1", "iptables-save", "-t", "nat")


def test_kubelet_and_controllers_work_by_the_fields_and_flags_of_the_lab_file(cli: Cli) -> None:
    capacity = cli.run("kubectl", "get", "nodes", "-o", "jsonpath={.items[*].status.capacity.pods}").stdout
    assert capacity == "20 20"
    slices = cli.run("kubectl", "get", "endpointslices", "-n", "kube-system", "-o", "json").stdout
    assert [len(item["endpoints"]) for item in json.loads(slices)["items"]] == [1, 1]  # of CoreDNS's two pods


def test_cluster_dns_answers_by_the_corefile_of_the_lab_file(cli: Cli) -> None:
    asked = on(cli, "worker-1", "dig", "+short", "@10.96.0.10", "mine.example.com")
    assert asked == "192.0.2.7\n"


def test_what_is_in_manifests_is_ready_when_the_lab_is_up(cli: Cli) -> None:
    ready = cli.run("kubectl", "get", "-n", "mine", "deployment/web", "toy/bear", "-o", "json").stdout
    assert [item.get("status", {}).get("readyReplicas") for item in json.loads(ready)["items"]] == [2, None]
    assert cli.run("kubectl", "get", "pod", "once", "-o", "jsonpath={.status.phase}").stdout == "Succeeded"
    assert "✓ manifests: 6 objects" in (cli.folder / "said").read_text()


def test_a_manifest_that_cannot_run_ends_up_with_its_file_and_object(short_path: Path) -> None:
    own = Cli(short_path)
    (short_path / "web.yaml").write_text(WEB.replace("nginx", "ngnix"))
    (short_path / "lab.yaml").write_text("topology: {workers: 1}\nmanifests: [web.yaml]\n")
    done = own.run("up", "-f", str(short_path / "lab.yaml"))
    assert done.returncode == 1
    # The kubelet says ErrImagePull once and then ImagePullBackOff with the same reason, as upstream's does.
    assert re.search(
        r'web\.yaml: Deployment mine/web: .*ErrImagePull: image "ngnix" is not in the image catalogue', done.stderr
    ), done.stderr
    assert not (own.state / "default").exists()


def test_a_pod_of_the_manifests_that_fails_ends_up_with_its_exit_code(short_path: Path) -> None:
    own = Cli(short_path)
    failing = json.loads(json.dumps(ONCE).replace("true", "false"))
    # Without a probe the pod is ready from its start to its end, and up may see it then.
    failing["spec"]["containers"][0]["readinessProbe"] = {"exec": {"command": ["/bin/false"]}}
    (short_path / "lab.yaml").write_text(json.dumps({"topology": {"workers": 1}, "manifests": [failing]}))
    done = own.run("up", "-f", str(short_path / "lab.yaml"))
    assert done.returncode == 1
    assert "Pod once: the pod has failed: container c ended with exit code 1 (Error)" in done.stderr, done.stderr


def test_files_are_on_the_nodes_that_they_are_for(cli: Cli) -> None:
    look = ("sh", "-c", "cat /etc/motd /run/app.conf; stat -c %a /run/app.conf")
    assert on(cli, "worker-1", *look) == "hello\nport: 80\n640\n"
    assert on(cli, "control-plane", *look) == "hello\n"


def test_a_users_component_runs_on_its_nodes_and_nobody_restarts_it(cli: Cli) -> None:
    status = cli.run("status", "--name", "default").stdout
    assert re.search(r"worker-1 .* flannel, hello$", status, re.M), status
    assert re.search(r"control-plane .* once \(ended, code 0\)$", status, re.M), status
    assert (cli.state / "default/logs/hello@worker-1.log").read_text() == "good day\n"


def test_a_users_component_that_fails_ends_up_with_its_log(short_path: Path) -> None:
    own = Cli(short_path)
    failing = {"name": "bad", "command": ["/bin/sh", "-c", "echo no way; exit 3"], "nodes": "worker-1"}
    (short_path / "lab.yaml").write_text(json.dumps({"topology": {"workers": 1}, "components": [failing]}))
    done = own.run("up", "-f", str(short_path / "lab.yaml"))
    assert done.returncode == 1
    assert (
        "step failed: start bad (on worker-1)\n  it ended with exit code 3" in done.stderr and "| no way" in done.stderr
    )


def test_a_name_of_the_labs_own_is_refused(short_path: Path) -> None:
    own = Cli(short_path)
    done = own.run("up", "-f", "-", input='{"components": [{"name": "kubelet", "command": ["/bin/true"]}]}')
    assert done.returncode == 2
    assert "components: control-plane runs the lab's own kubelet; give yours another name" in done.stderr


def test_an_image_is_found_by_a_pattern_and_runs_as_the_lab_file_says(cli: Cli) -> None:
    assert cli.run("kubectl", "exec", "own", "--", "cat", "/proc/1/cmdline").stdout == "/bin/sleep\0001h\000"
    assert cli.run("kubectl", "exec", "own", "--", "pwd").stdout == "/srv\n"
