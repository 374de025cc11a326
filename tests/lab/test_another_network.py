"""A network is a folder and an entry in the registry: a copy of the tree gets one more, and a lab comes up with it."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubewire.components.runtime.api import RuntimeClient
from tests.lab.kubewire_cli import ROOT, Cli

pytestmark = pytest.mark.lab

PACKAGES = ("components", "lab", "scenarios", "topologies", "vm")
REGISTRY = "components/networks/registry.py"


@pytest.fixture
def cli(short_path: Path) -> Iterator[Cli]:
    """The command line of a copy of the tree that has one network more."""
    tree = short_path / "tree"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "docs", tree / "docs")
    shutil.copytree(ROOT / "tests/lab/another_network", tree / "components/networks/static")
    for name in ("setup.py", "VERSION", "debian-packages.txt"):
        shutil.copy(ROOT / name, tree)
    (tree / "src").mkdir()
    (tree / "src/kubewire").symlink_to("..")
    register(tree / REGISTRY)
    cli = Cli(short_path / "cli")
    cli.environment["PYTHONPATH"] = str(tree / "src")
    lists = [sys.executable, "-m", "kubewire.lab.setup.generate"]
    subprocess.run(lists, env=cli.environment, cwd=tree, check=True)
    yield cli
    cli.run("down", "--all")


def register(registry: Path) -> None:
    """An import and an entry."""
    lines = registry.read_text().splitlines()
    lines.insert(lines.index("    none.NETWORK,"), "    static.NETWORK,")
    imports = [number for number, line in enumerate(lines) if line.startswith("from kubewire.components.networks.none")]
    lines.insert(imports[0], "from kubewire.components.networks.static import network as static")
    registry.write_text("\n".join([*lines, ""]))


def test_a_network_that_is_added_brings_a_lab_up(cli: Cli, short_path: Path) -> None:
    assert "a route to the other node, written down" in cli.run("up", "--help").stdout
    cases = cli.run("run", "-l", "-k", "every-network and static").stdout
    assert "cni=static/with-hairpin" in cases and "cni=static/without-hairpin" in cases
    lab_file = short_path / "lab.yaml"
    lab_file.write_text("topology: {workers: 1}\ncni: {plugin: static, metric: 9}\n")
    done = cli.run("up", "-f", str(lab_file))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lab default is up (static/with-hairpin" in done.stdout
    # Bring-up has asked cluster DNS from both nodes, so packets have crossed; these are the routes of the agent.
    assert "via 172.18.0.2 dev eth0 metric 9" in on_worker(cli, "ip", "route")
    assert "system:serviceaccount:static-system:static" in on_worker(cli, "cat", "/etc/kubernetes/static-agent.conf")
    assert "/etc/static" in on_worker(cli, "findmnt", "-rno", "TARGET")
    assert "namespace/static-system" in cli.run("kubectl", "get", "namespaces", "-o", "name").stdout


def test_what_it_runs_is_the_network_of_the_control_socket(cli: Cli, short_path: Path) -> None:
    lab_file = short_path / "lab.yaml"
    lab_file.write_text("topology: {workers: 1}\ncni: {plugin: static}\ndns: {replicas: 0}\n")
    assert cli.run("up", "-f", str(lab_file)).returncode == 0
    state = cli.state / "default"
    with socket.socket(socket.AF_UNIX) as control:
        control.connect(str(state / "control.sock"))
        request = {"op": "component", "name": "network", "host": "worker-1", "action": "stop"}
        control.sendall(json.dumps(request).encode() + b"\n")
        assert json.loads(control.makefile().readline()) == {"result": None}
    processes = RuntimeClient(state / "runtime.sock").list({"host": "worker-1"})
    assert {process.labels["component"] for process in processes if not process.running} == {"static-agent"}


def on_worker(cli: Cli, *command: str) -> str:
    return cli.run("node", "worker-1", "--", *command).stdout


def test_what_its_lab_file_says_wrongly_is_refused(cli: Cli, short_path: Path) -> None:
    lab_file = short_path / "lab.yaml"
    lab_file.write_text("cni: {plugin: static, backend: host-gw}\n")
    assert "static has with-hairpin, without-hairpin; not host-gw" in cli.run("up", "-f", str(lab_file)).stderr
    lab_file.write_text("cni: {plugin: flannel, metric: 3}\n")
    assert "cni.metric: is for static, not for flannel" in cli.run("up", "-f", str(lab_file)).stderr
