"""Each import contract of pyproject.toml is broken by the import that it forbids, also in a component that is new."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("components", "lab", "scenarios", "topologies", "vm")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, with one more component."""
    copy = tmp_path_factory.mktemp("checkout")
    shutil.copy(ROOT / "pyproject.toml", copy)
    (copy / "src").mkdir()
    (copy / "src/kubewire").symlink_to("..")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copy / package, ignore=lambda folder, names: _no_sources(folder, names))
    (copy / "components/brand_new").mkdir()
    (copy / "components/brand_new/__init__.py").touch()
    (copy / "components/brand_new/agent.py").touch()
    return copy


def _no_sources(folder: str, names: list[str]) -> set[str]:
    return {name for name in names if not name.endswith(".py") and not (Path(folder) / name).is_dir()}


def lint(checkout: Path) -> str:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--no-cache"],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout / "src"), "COLUMNS": "500"},
        capture_output=True,
        text=True,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        (
            "components/networks/azure_cni/masquerade.py",
            "from kubewire.components.networks.calico import bird",
            "networks never import each other",
        ),
        (
            "components/networks/calico/agent.py",
            "from kubewire.components.networks import registry",
            "networks never import each other",
        ),
        (
            "components/networks/azure_cni/agent.py",
            "from kubewire.components.vpc import cloud",
            "components never import each other",
        ),
        (
            "components/networks/flannel/network.py",
            "from kubewire.components.networks.weave import network",
            "networks never import each other",
        ),
        ("components/addon.py", "from kubewire.components.kernel import command", "an add-on's descriptor"),
        ("components/networks/registry.py", "import asyncio", "what plans and renders does no I/O"),
        (
            "components/base/tls.py",
            "from kubewire.components.networks.azure_cni import masquerade",
            "components never import each",
        ),
        (
            "components/brand_new/agent.py",
            "from kubewire.components.kubelet import node",
            "components never import each other",
        ),
        (
            "components/kubelet/node/object.py",
            "from kubewire.components.runtime import server",
            "components never import each other",
        ),
        (
            "components/kubelet/node/object.py",
            "import kubewire.components.brand_new.agent",
            "components never import each other",
        ),
        (
            "components/kernel/command.py",
            "from kubewire.components.base import yamlfile",
            "the Kubernetes API's client above",
        ),
        (
            "components/kernel/command.py",
            "from kubewire.components.networks.flannel import lease",
            "components never import each other",
        ),
        ("vm/errors.py", "from kubewire.components import vpc", "vm builds and boots"),
        ("vm/errors.py", "from kubewire.components import brand_new", "vm builds and boots"),
        ("scenarios/engine/loader.py", "from kubewire.lab import cli", "lab above scenarios and vm"),
        ("components/networks/flannel/device.py", "from kubewire.topologies import plan", "lab above scenarios and vm"),
        ("topologies/plan.py", "from kubewire.components.kernel import command", "topologies import only Mininet"),
        (
            "components/apiserver/registry/fieldownership.py",
            "from kubewire.components.apiserver.registry.registry import Registry",
            "the API server's registry: applying above",
        ),
        (
            "components/apiserver/store.py",
            "from kubewire.components.apiserver.http import endpoints",
            "the API server: requests above",
        ),
        (
            "components/apiserver/registry/deletion.py",
            "from kubewire.components.apiserver.crd import customresources",
            "the API server: requests above",
        ),
        (
            "components/base/tls.py",
            "from kubewire.components.kubeapi import client",
            "the Kubernetes API's client above",
        ),
        ("components/kernel/files.py", "import aiohttp", "kernel knows nothing of HTTP"),
        (
            "components/kube_proxy/state/topology.py",
            "from kubewire.components.kube_proxy.nftables import rules",
            "kube-proxy: main above the sync",
        ),
        (
            "components/kubelet/images/pulls.py",
            "from kubewire.components.kubelet.pod import worker",
            "the kubelet: its server above",
        ),
        (
            "scenarios/engine/verbs/kernel.py",
            "from kubewire.scenarios.engine.run import runner",
            "the scenario engine: runs above reports",
        ),
        ("lab/sandbox/door.py", "from kubewire.lab.bringup import steps", "lab: commands above bring-up"),
        ("components/apiserver/kinds/spec.py", "import socket", "what plans and renders does no I/O"),
        (
            "components/runtime/peers.py",
            "from kubewire.components.runtime.server import Server",
            "the fork server knows its peers",
        ),
        ("components/kube_proxy/iptables/rules.py", "import subprocess", "what plans and renders does no I/O"),
        ("components/kubelet/pod/plan.py", "import asyncio", "what plans and renders does no I/O"),
    ],
)
def test_a_planted_import_breaks_its_contract(checkout: Path, file: str, line: str, contract: str) -> None:
    path = checkout / file
    before = path.read_text()
    path.write_text(f"{before}\n{line}\n")
    try:
        broken = [
            said for said in lint(checkout).splitlines() if said.rstrip().endswith("BROKEN") or "BROKEN (" in said
        ]
    finally:
        path.write_text(before)
    assert any(said.startswith(contract) for said in broken), broken


def test_the_sources_keep_all_of_them(checkout: Path) -> None:
    assert "0 broken." in lint(checkout)
