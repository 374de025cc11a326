"""A bring-up that fails says which step, on which node, with which command and what that said; nothing is left."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.kubewire_cli import ROOT, Cli
from tests.lab.test_kill import machine_network, mounts

pytestmark = pytest.mark.lab


@pytest.fixture
def cli(short_path: Path) -> Cli:
    return Cli(short_path / "cli")


@pytest.fixture
def tools() -> Iterator[Path]:
    """A folder of the checkout: a lab does not see the machine's /tmp."""
    (ROOT / ".cache").mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="tools-", dir=ROOT / ".cache"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def with_tool(cli: Cli, folder: Path, name: str, script: str) -> None:
    """A program of this name ahead of the machine's own."""
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    cli.environment["PATH"] = f"{folder}:{os.environ['PATH']}"


def test_a_node_whose_interface_cannot_be_configured_is_named_with_command_and_output(cli: Cli, tools: Path) -> None:
    real = os.popen("command -v ip").read().strip()
    with_tool(
        cli,
        tools,
        "ip",
        f"""case "$*" in
-batch*) lines=$(cat); case "$lines" in
  *172.18.0.4/16*) echo "RTNETLINK answers: No buffer space available"; exit 1;; esac
  printf '%s\\n' "$lines" | {real} "$@";;
*) exec {real} "$@";;
esac""",
    )
    network, mounted = machine_network(), mounts()
    done = cli.run("up", "--workers", "2")
    assert done.returncode == 1
    assert "step failed: network: 3 nodes, one-segment (on worker-2)" in done.stderr
    assert "addr add 172.18.0.4/16 dev eth0" in done.stderr
    assert "| RTNETLINK answers: No buffer space available" in done.stderr
    assert not (cli.state / "default").exists()
    assert machine_network() == network and mounts() == mounted


def test_a_node_that_cannot_start_is_named_with_what_its_start_said(cli: Cli, tools: Path) -> None:
    real = os.popen("command -v mnexec").read().strip()
    with_tool(
        cli,
        tools,
        "mnexec",
        f"""case "$*" in
*mininet:worker-2*) echo "unshare: No space left on device" >&2; exit 1;;
*) exec {real} "$@";;
esac""",
    )
    done = cli.run("up", "--workers", "2", timeout=60)
    assert done.returncode == 1
    assert "step failed: network: 3 nodes, one-segment (on worker-2)" in done.stderr
    assert "command: mnexec -cdn env" in done.stderr
    assert "| unshare: No space left on device" in done.stderr
    assert "| its shell ended with exit code 1" in done.stderr
    assert not (cli.state / "default").exists()


def test_a_node_whose_shell_ends_while_it_is_configured_is_named(cli: Cli, tools: Path) -> None:
    real = os.popen("command -v ip").read().strip()
    with_tool(
        cli,
        tools,
        "ip",
        f"""case "$*" in
-batch*) lines=$(cat); case "$lines" in *172.18.0.4/16*) kill -9 $PPID; exit 1;; esac
  printf '%s\\n' "$lines" | {real} "$@";;
*) exec {real} "$@";;
esac""",
    )
    done = cli.run("up", "--workers", "2", timeout=60)
    assert done.returncode == 1
    assert "step failed: network: 3 nodes, one-segment (on worker-2)" in done.stderr
    assert "addr add 172.18.0.4/16 dev eth0" in done.stderr
    assert "| its shell ended with exit code -9" in done.stderr
    assert not (cli.state / "default").exists()


def test_a_component_that_dies_is_named_with_the_end_of_its_log(cli: Cli, short_path: Path) -> None:
    lab_file = short_path / "lab.yaml"
    lab_file.write_text("topology: {workers: 1}\nimages: {'no image name': {argv: [/bin/true]}}\n")
    done = cli.run("up", "-f", str(lab_file), timeout=200)
    assert done.returncode == 1
    assert re.search(r"step failed: start kubelet \(on (control-plane|worker-1)\)", done.stderr)
    assert "no image name" in done.stderr
    assert not (cli.state / "default").exists()
