"""What `pip install .` puts on a machine: everything a lab needs, and a lab that comes up from there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.kubewire_cli import ROOT, Cli

LAB_FILE = """
images:
  "example/app:1":
    argv: [/usr/bin/python3, -c, 'import os; print(os.environ["GREETING"], "from python")']
    env: {GREETING: hello}
"""
PACKAGES = ("lab", "components", "scenarios", "topologies", "vm")


def install(folder: Path) -> Path:
    """setup.py's own install, since the venv has no wheel package; returns the folder for PYTHONPATH."""
    steps = ["egg_info", "-e", str(folder), "build", "-b", str(folder / "build")]
    steps += ["install", "--root", str(folder / "root"), "--single-version-externally-managed"]
    steps += ["--record", str(folder / "record")]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "setup.py", "-q", *steps], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (cli,) = (folder / "root").rglob("lab/cli.py")
    return cli.parents[2]


def files(root: Path) -> set[str]:
    found = (path for package in PACKAGES for path in (root / package).rglob("*") if path.is_file())
    return {str(path.relative_to(root)) for path in found if path.suffix != ".pyc"}


def test_every_file_of_the_packages_is_installed(tmp_path: Path) -> None:
    installed = install(tmp_path)
    assert files(ROOT) - files(installed / "kubewire") == set()
    assert [path.read_text() for path in tmp_path.rglob("share/kubewire/debian-packages.txt")] == [
        (ROOT / "debian-packages.txt").read_text()
    ]
    scripts = {path.name for path in tmp_path.rglob("bin/*")}
    assert "kubewire" in scripts


@pytest.mark.lab
def test_a_lab_comes_up_from_an_installation_in_tmp(short_path: Path) -> None:
    """Nodes have a /tmp of their own; kubewire's code must stay visible on them and in their pods."""
    cli = Cli(short_path)
    cli.environment["PYTHONPATH"] = str(install(short_path))
    lab_file = short_path / "lab.yaml"
    lab_file.write_text(LAB_FILE)
    up = cli.run("up", "-f", str(lab_file), "--workers", "1", cwd="/")
    assert up.returncode == 0, up.stderr
    try:
        cli.run("kubectl", "run", "hello", "--image=example/app:1", "--restart=Never", cwd="/")
        cli.run("kubectl", "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/hello", "--timeout=60s", cwd="/")
        assert cli.run("kubectl", "logs", "hello", cwd="/").stdout == "hello from python\n"
    finally:
        assert cli.run("down", cwd="/").returncode == 0
