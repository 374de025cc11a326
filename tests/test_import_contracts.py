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
            "components/azure_cni/masquerade.py",
            "from kubewire.components.calico import bird",
            "components never import each other",
        ),
        (
            "components/machinery/tls.py",
            "from kubewire.components.azure_cni import masquerade",
            "components never import each",
        ),
        (
            "components/brand_new/agent.py",
            "from kubewire.components.kubelet import node",
            "components never import each other",
        ),
        (
            "components/kubelet/node.py",
            "from kubewire.components.runtime import server",
            "components never import each other",
        ),
        (
            "components/kubelet/node.py",
            "import kubewire.components.brand_new.agent",
            "components never import each other",
        ),
        (
            "components/kernel/command.py",
            "from kubewire.components.machinery import client",
            "kernel knows nothing of Kubernetes",
        ),
        (
            "components/kernel/command.py",
            "from kubewire.components.flannel import lease",
            "components never import each other",
        ),
        ("vm/errors.py", "from kubewire.components import vpc", "vm builds and boots"),
        ("vm/errors.py", "from kubewire.components import brand_new", "vm builds and boots"),
        ("scenarios/engine/loader.py", "from kubewire.lab import cli", "lab above scenarios and vm"),
        ("components/flannel/device.py", "from kubewire.topologies import plan", "lab above scenarios and vm"),
        ("topologies/plan.py", "from kubewire.components.machinery import command", "topologies import only Mininet"),
        (
            "components/apiserver/fieldownership.py",
            "from kubewire.components.apiserver.registry import Registry",
            "the API server's requests stand above",
        ),
        (
            "components/apiserver/store.py",
            "from kubewire.components.apiserver import endpoints",
            "the API server's requests stand",
        ),
        (
            "components/runtime/peers.py",
            "from kubewire.components.runtime.server import Server",
            "the fork server knows its peers",
        ),
        ("components/kube_proxy/iptables/rules.py", "import subprocess", "what plans and renders does no I/O"),
        ("components/kubelet/plan.py", "import asyncio", "what plans and renders does no I/O"),
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
