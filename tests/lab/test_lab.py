"""Whole labs: side by side, without root, without a way out, and with components that die."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kubewire.components.kubeapi.client import ApiError, ApiUnavailable, Client
from kubewire.components.kubeapi.resources import CONFIGMAPS, DEPLOYMENTS, NODES, PODS, SERVICES
from kubewire.lab.handle import LabStarter, RunningLab
from kubewire.scenarios.engine.file.spec import LabSpec
from tests.lab.kubewire_cli import ROOT, Cli

pytestmark = pytest.mark.lab

AGNHOST = "registry.k8s.io/e2e-test-images/agnhost:2.53"


def web(name: str, replicas: int = 1) -> Any:
    labels = {"app": name}
    container = {
        "name": "web",
        "image": AGNHOST,
        "args": ["netexec", "--http-port=8080"],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1},
    }
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
    }


def service(name: str, **spec: Any) -> Any:
    ports = [{"port": 80, "targetPort": 8080}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"app": name}, "ports": ports, **spec},
    }


def with_api(kubeconfig: Path, body: Callable[[Client], Any], timeout: float = 60.0) -> Any:
    async def whole() -> Any:
        async with Client.from_kubeconfig(kubeconfig) as client, asyncio.timeout(timeout):
            return await body(client)

    return asyncio.run(whole())


def test_the_labs_first_process_is_the_parent_of_all_others(running_lab: RunningLab) -> None:
    """A namespace does not end while it has a zombie that nobody outside reaps, as in a container without an init."""
    init = json.loads((running_lab.state_dir / "lab.json").read_text())["init_pid"]
    children = Path(f"/proc/{init}/task/{init}/children").read_text().split()
    assert "kubewire-door" in [Path(f"/proc/{child}/comm").read_text().strip() for child in children]


@pytest.fixture
def deployed(running_lab: RunningLab) -> Iterator[RunningLab]:
    """A Deployment and a NodePort Service `target`, answering."""

    async def create(client: Client) -> None:
        await client.create(DEPLOYMENTS, web("target", 2))
        await client.create(SERVICES, service("target", type="NodePort", clusterIP="10.96.77.77"))

    async def delete(client: Client) -> None:
        await client.delete(DEPLOYMENTS, "target", "default")
        await client.delete(SERVICES, "target", "default")

    with_api(running_lab.kubeconfig, create)
    for worker in ("worker-1", "worker-2"):
        until(running_lab, worker, "[ $(iptables-save -t nat | grep -c -- '-A KUBE-SEP.*default/target.*DNAT') = 2 ]")
        until(running_lab, worker, "curl -sf -m 1 http://10.96.77.77/hostname")
    yield running_lab
    with_api(running_lab.kubeconfig, delete)
    for worker in ("worker-1", "worker-2"):
        until(running_lab, worker, "! iptables-save -t nat | grep default/target")


def until(lab: RunningLab, host: str, command: str) -> None:
    """Rules follow the API on each node in its own time."""
    done = lab.exec(host, ["sh", "-c", f"until {command}; do :; done"], timeout=30)
    assert done.returncode == 0, f"{host}: waited in vain for: {command}"


def test_the_kubeconfig_and_state_are_for_their_owner_alone(running_lab: RunningLab) -> None:
    assert running_lab.kubeconfig.stat().st_mode & 0o777 == 0o600
    assert running_lab.state_dir.stat().st_mode & 0o777 == 0o700


def test_a_lab_has_no_way_out(running_lab: RunningLab) -> None:
    done = running_lab.exec("router", ["ip", "route", "get", "192.0.2.1"])
    assert done.returncode != 0 and b"unreachable" in done.stderr
    # Interfaces of the fabric: loopback, bridges and their veth ports. Nothing of the machine's.
    record = json.loads((running_lab.state_dir / "lab.json").read_text())
    seen = subprocess.run(
        ["nsenter", f"--net=/proc/{record['init_pid']}/ns/net", "ip", "-j", "-d", "link"],
        capture_output=True,
        check=True,
    )
    kinds = {link.get("linkinfo", {}).get("info_kind", link["ifname"]) for link in json.loads(seen.stdout)}
    assert kinds == {"lo", "bridge", "veth"}
    assert not {link["ifname"] for link in json.loads(seen.stdout)} & {"eth0"}


def test_without_credentials_nobody_reads_an_object(running_lab: RunningLab) -> None:
    record = json.loads((running_lab.state_dir / "lab.json").read_text())
    url = f"https://127.0.0.1:{record['port']}/api/v1/pods"
    done = subprocess.run(["curl", "-sk", url], capture_output=True, text=True, check=True)
    assert (json.loads(done.stdout)["code"], json.loads(done.stdout)["reason"]) == (403, "Forbidden")


def test_the_outside_world_knows_its_names_and_that_there_are_no_others(running_lab: RunningLab) -> None:
    known = running_lab.exec("worker-1", ["dig", "+short", "www.example.com"])
    assert known.text.strip() == "203.0.113.10"
    unknown = running_lab.exec("worker-1", ["dig", "+noall", "+comments", "+authority", "no.such.test"]).text
    assert "status: NXDOMAIN" in unknown and "SOA" in unknown


def test_a_command_on_a_node_has_its_namespaces_hostname_and_exit_code(running_lab: RunningLab) -> None:
    environment = os.environ | {
        "KUBEWIRE_STATE_DIR": str(running_lab.state_dir.parent),
        "PYTHONPATH": str(ROOT / "src"),
    }
    script = "hostname; ip -4 -o addr show eth0; exit 5"
    command = [
        sys.executable,
        "-m",
        "kubewire.lab",
        "node",
        "--name",
        running_lab.name,
        "worker-2",
        "--",
        "sh",
        "-c",
        script,
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL)
    assert done.returncode == 5
    assert done.stdout.splitlines()[0] == "worker-2"
    assert "172.18.0.4/16" in done.stdout


def test_acknowledged_writes_survive_kill_9_of_the_api_server_under_traffic(deployed: RunningLab) -> None:
    lost: list[str] = []
    stop = threading.Event()

    def traffic() -> None:
        while not stop.is_set():
            done = deployed.exec("worker-2", ["curl", "-sSf", "-m", "2", "http://10.96.77.77/hostname"])
            if done.returncode:
                lost.append(f"curl ended with {done.returncode}: {done.stderr.decode()}")

    async def write(client: Client) -> list[str]:
        acknowledged = []
        killer = asyncio.get_running_loop().run_in_executor(None, kill_and_start)
        number = 0
        while not killer.done() or number < 60:
            name = f"kept-{number}"
            metadata = {"name": name, "namespace": "default", "labels": {"kept": "yes"}}
            kept: Any = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
            try:
                await client.create(CONFIGMAPS, kept)
            except ApiUnavailable:
                await asyncio.sleep(0.01)  # down at the moment; this write was not acknowledged
            except ApiError as error:
                assert error.reason == "AlreadyExists", error
            else:
                acknowledged.append(name)
            number += 1
        await killer
        return acknowledged

    def kill_and_start() -> None:
        deployed.component("apiserver", "control-plane", "kill")
        deployed.component("apiserver", "control-plane", "start")

    async def check(client: Client, acknowledged: list[str]) -> set[str]:
        listed = await client.list(CONFIGMAPS, "default", label_selector="kept=yes")
        for item in listed.items:
            await client.delete(CONFIGMAPS, item["metadata"]["name"], "default")
        return set(acknowledged) - {item["metadata"]["name"] for item in listed.items}

    thread = threading.Thread(target=traffic)
    thread.start()
    try:
        acknowledged = with_api(deployed.kubeconfig, write)
    finally:
        stop.set()
        thread.join()
    assert acknowledged
    assert with_api(deployed.kubeconfig, lambda client: check(client, acknowledged)) == set()
    assert lost == []


def test_a_service_change_after_the_api_servers_restart_still_reaches_the_rules(deployed: RunningLab) -> None:
    deployed.component("apiserver", "control-plane", "kill")
    deployed.component("apiserver", "control-plane", "start")

    async def change(client: Client) -> None:
        while True:
            try:
                patch = {"spec": {"ports": [{"port": 81, "targetPort": 8080}]}}
                await client.patch(SERVICES, "target", patch, "default")
                return
            except ApiUnavailable:
                await asyncio.sleep(0.01)

    with_api(deployed.kubeconfig, change)
    script = "until curl -sf -m 1 http://10.96.77.77:81/hostname; do :; done"
    assert deployed.exec("worker-1", ["sh", "-c", script], timeout=30).text.startswith("target-")


def test_a_client_outside_reaches_a_node_port_through_the_router(deployed: RunningLab) -> None:
    async def port(client: Client) -> int:
        found: int = (await client.get(SERVICES, "target", "default"))["spec"]["ports"][0]["nodePort"]
        return found

    number = with_api(deployed.kubeconfig, port)
    script = f"until curl -sf -m 1 http://172.18.0.3:{number}/hostname; do :; done"
    assert deployed.exec("client", ["sh", "-c", script], timeout=30).text.startswith("target-")


def test_a_killed_pause_gives_a_new_sandbox_and_a_killed_container_keeps_the_address(deployed: RunningLab) -> None:
    async def pod(client: Client, restarts: int, other_than: str = "") -> Any:
        while True:
            listed: Any = await client.list(PODS, "default", label_selector="app=target")
            for item in listed.items:
                state = (item.get("status", {}).get("containerStatuses") or [{}])[0]
                ready = state.get("ready") and state.get("restartCount", 0) >= restarts
                if item["metadata"]["name"] == name and ready and item["status"]["podIP"] != other_than:
                    return item
            await asyncio.sleep(0.05)

    async def first(client: Client) -> Any:
        return (await client.list(PODS, "default", label_selector="app=target")).items[0]

    before = with_api(deployed.kubeconfig, first)
    name, address = before["metadata"]["name"], before["status"]["podIP"]
    labels = {"io.kubernetes.pod.name": name}
    runtime = deployed._runtime()
    container = next(p for p in runtime.list(labels) if p.running and "pause" not in p.name)
    runtime.signal(container.id, 9)
    after = with_api(deployed.kubeconfig, lambda client: pod(client, 1))
    assert after["status"]["podIP"] == address
    pause = next(p for p in runtime.list(labels) if p.running and "pause" in p.name)
    runtime.signal(pause.id, 9)
    again = with_api(deployed.kubeconfig, lambda client: pod(client, 2, address))
    assert again["metadata"]["uid"] == before["metadata"]["uid"]


def test_two_labs_with_the_same_addresses_run_at_once(short_path: Path) -> None:
    lab_file = short_path / "lab.yaml"
    lab_file.write_text("topology: {workers: 1}\ndns: {replicas: 0}\n")
    cli = Cli(short_path / "cli")
    processes = {name: cli.popen("up", "-f", str(lab_file), "--name", name) for name in ("one", "two")}
    try:
        for name, process in processes.items():
            output, _ = process.communicate(timeout=90)
            assert process.returncode == 0, output
            for host in ("control-plane", "worker-1"):
                text = f"{name} on {host}"
                write = ["sh", "-c", f"echo {text} >/tmp/index.html; busybox httpd -p 8000 -h /tmp"]
                assert cli.run("node", "--name", name, host, "--", *write).returncode == 0
        for name in processes:
            script = "curl -sf -m 5 http://172.18.0.2:8000/"
            done = cli.run("node", "--name", name, "worker-1", "--", "sh", "-c", script)
            assert done.stdout == f"{name} on control-plane\n"
    finally:
        assert cli.run("down", "--all").returncode == 0
    assert cli.run("status").stdout.startswith("no labs")


@pytest.mark.parametrize("without", [{"kubeProxy": {"mode": "none"}}, {"cni": {"plugin": "none"}}], ids=str)
def test_a_lab_does_not_wait_for_what_its_file_leaves_out(
    short_path: Path, without: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBEWIRE_STATE_DIR", str(short_path))
    with LabStarter()(LabSpec.parse({"topology": {"workers": 1}, **without}), "without") as lab:
        rules = lab.exec("worker-1", ["iptables-save", "-t", "nat"]).text
        nodes = with_api(lab.kubeconfig, lambda client: client.list(NODES))
    assert "KUBE-SERVICES" not in rules or "cni" in without
    assert len(nodes.items) == 2


def test_two_racks_behind_routers_with_limited_links_carry_pods(short_path: Path) -> None:
    lab_file = short_path / "lab.yaml"
    lab_file.write_text("topology: {shape: two-racks, workers: 2, links: {bandwidth: 50}}\ndns: {replicas: 0}\n")
    cli = Cli(short_path / "cli")
    done = cli.run("up", "-f", str(lab_file), "--name", "racks")
    assert done.returncode == 0, done.stderr
    try:
        trace = ["busybox", "traceroute", "-n", "172.18.64.2"]
        path = cli.run("node", "--name", "racks", "worker-1", "--", *trace)
        assert re.findall(r"^ *\d+ +(\S+)", path.stdout, re.M)[:3] == ["172.18.0.1", "172.18.192.1", "172.18.192.6"]
        qdisc = cli.run("node", "--name", "racks", "worker-1", "--", "tc", "qdisc", "show", "dev", "eth0").stdout
        assert "tbf" in qdisc and "rate 50Mbit" in qdisc
        zones = cli.run("kubectl", "--name", "racks", "get", "nodes", "-L", "topology.kubernetes.io/zone").stdout
        assert re.search(r"worker-1 .*rack-1", zones) and re.search(r"worker-2 .*rack-2", zones)
        pods_across_the_spine(cli)
    finally:
        cli.run("down", "--name", "racks")


def pods_across_the_spine(cli: Cli) -> None:
    """Flannel's overlay needs no common segment: pods of both racks see each other under their own addresses."""
    kubectl = ("kubectl", "--name", "racks")
    for number in (1, 2):
        overrides = json.dumps({"spec": {"nodeName": f"worker-{number}", "terminationGracePeriodSeconds": 0}})
        cli.run(*kubectl, "run", f"p{number}", f"--image={AGNHOST}", f"--overrides={overrides}", "--", "netexec")
    assert cli.run(*kubectl, "wait", "--for=condition=Ready", "pod/p1", "pod/p2", "--timeout=30s").returncode == 0
    address = cli.run(*kubectl, "get", "pod", "p2", "-o", "jsonpath={.status.podIP}").stdout
    script = f"until curl -sf -m 1 http://{address}:8080/clientip; do :; done"
    seen = cli.run(*kubectl, "exec", "p1", "--", "sh", "-c", script, timeout=30).stdout
    own = cli.run(*kubectl, "get", "pod", "p1", "-o", "jsonpath={.status.podIP}").stdout
    assert seen.split(":")[0] == own


@pytest.mark.skipif(os.geteuid() != 0, reason="root is needed to become somebody else")
def test_without_root_a_pod_reaches_a_service_by_its_name(short_path: Path) -> None:
    short_path.chmod(0o755)
    cli = Cli(short_path / "cli")
    for folder in (short_path / "cli", cli.temporary):
        os.chown(folder, 12345, 12345)
    cli.environment["HOME"] = str(cli.temporary)
    as_user = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups"]
    plain = cli.argv
    cli.argv = lambda *arguments: [*as_user, *plain(*arguments)]  # type: ignore[method-assign]
    if cli.run("doctor").returncode:
        pytest.skip("this kernel gives ordinary users no namespaces; kubewire doctor says which")
    done = cli.run("up", "--name", "user", "--workers", "1")
    assert done.returncode == 0, done.stderr
    try:
        kubectl = ("kubectl", "--name", "user")
        cli.run(*kubectl, "create", "deployment", "web", f"--image={AGNHOST}", "--", "/agnhost", "netexec")
        cli.run(*kubectl, "expose", "deployment", "web", "--port=80", "--target-port=8080")
        script = "until curl -sf -m 1 http://web/hostname; do :; done"
        run = ("run", "asker", "--image=nicolaka/netshoot", "--rm", "-i", "--restart=Never", "--", "sh", "-c", script)
        answer = cli.run(*kubectl, *run, stdin=subprocess.DEVNULL)
        assert re.search(r"web-\w+-\w+", answer.stdout), answer
    finally:
        assert cli.run("down", "--name", "user").returncode == 0
    shutil.rmtree(cli.state, ignore_errors=True)
