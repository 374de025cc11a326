"""A bring-up that fails says which step, on which node, with which command and what that said; nothing is left."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.lab.kubewire_cli import Cli
from tests.lab.test_kill import machine_network, mounts

pytestmark = pytest.mark.lab


@pytest.fixture
def cli(short_path: Path) -> Cli:
    return Cli(short_path / "cli")


def up_with_tool(cli: Cli, folder: Path, name: str, script: str) -> subprocess.CompletedProcess[str]:
    """`kubewire up` where script stands in the place of a program of the machine, for this command alone.

    REAL in script is the program. A lab takes no PATH from outside and sees only what its file shares of this folder,
    so the script is bound over the program in a mount namespace of the command's own.
    """
    folder.mkdir()
    program = shutil.which(name)
    assert program is not None
    real = folder / f"real-{name}"
    shutil.copyfile(program, real)
    stand_in = folder / name
    stand_in.write_text(f"#!/bin/sh\n{script.replace('REAL', str(real))}\n")
    for path in (real, stand_in):
        path.chmod(0o755)
    lab_file = folder / "lab.yaml"
    lab_file.write_text(f"topology: {{workers: 2}}\nshare: [{folder}]\n")
    bind = f'mount --bind {stand_in} {os.path.realpath(program)} && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", bind, "sh", *cli.argv("up", "-f", str(lab_file))]
    return subprocess.run(command, env=cli.environment, capture_output=True, text=True, timeout=60)


def test_a_node_whose_interface_cannot_be_configured_is_named_with_command_and_output(
    cli: Cli, short_path: Path
) -> None:
    network, mounted = machine_network(), mounts()
    done = up_with_tool(
        cli,
        short_path / "tools",
        "ip",
        """case "$*" in
-batch*) lines=$(cat); case "$lines" in
  *172.18.0.4/16*) echo "RTNETLINK answers: No buffer space available"; exit 1;; esac
  printf '%s\\n' "$lines" | REAL "$@";;
*) exec REAL "$@";;
esac""",
    )
    assert done.returncode == 1
    assert "step failed: network: 3 nodes, one-segment (on worker-2)" in done.stderr
    assert "addr add 172.18.0.4/16 dev eth0" in done.stderr
    assert "| RTNETLINK answers: No buffer space available" in done.stderr
    assert not (cli.state / "default").exists()
    assert machine_network() == network and mounts() == mounted


def test_a_node_that_cannot_start_is_named_with_what_its_start_said(cli: Cli, short_path: Path) -> None:
    done = up_with_tool(
        cli,
        short_path / "tools",
        "mnexec",
        """case "$*" in
*mininet:worker-2*) echo "unshare: No space left on device" >&2; exit 1;;
*) exec REAL "$@";;
esac""",
    )
    assert done.returncode == 1
    assert "step failed: network: 3 nodes, one-segment (on worker-2)" in done.stderr
    assert "command: mnexec -cdn env" in done.stderr
    assert "| unshare: No space left on device" in done.stderr
    assert "| its shell ended with exit code 1" in done.stderr
    assert not (cli.state / "default").exists()


def test_a_node_whose_shell_ends_while_it_is_configured_is_named(cli: Cli, short_path: Path) -> None:
    done = up_with_tool(
        cli,
        short_path / "tools",
        "ip",
        """case "$*" in
-batch*) lines=$(cat); case "$lines" in *172.18.0.4/16*) kill -9 $PPID; exit 1;; esac
  printf '%s\\n' "$lines" | REAL "$@";;
*) exec REAL "$@";;
esac""",
    )
    assert done.returncode == 1
    assert "step failed: network: 3 nodes, one-segment (on worker-2)" in done.stderr
    assert "addr add 172.18.0.4/16 dev eth0" in done.stderr
    assert "| its shell ended with exit code -9" in done.stderr
    assert not (cli.state / "default").exists()


def test_a_component_that_dies_is_named_with_the_end_of_its_log(cli: Cli, short_path: Path) -> None:
    lab_file = short_path / "lab.yaml"
    lab_file.write_text("topology: {workers: 1}\nfiles: {/var/lib/kubelet/config.yaml: 'kind: Nothing'}\n")
    done = cli.run("up", "-f", str(lab_file), timeout=200)
    assert done.returncode == 1
    assert re.search(r"step failed: start kubelet \(on (control-plane|worker-1)\)", done.stderr)
    assert "config.yaml: must have apiVersion: kubelet.config.k8s.io/v1beta1" in done.stderr
    assert not (cli.state / "default").exists()


def test_a_lab_whose_fork_server_has_ended_says_so_at_once(cli: Cli, short_path: Path) -> None:
    lab_file = short_path / "lab.yaml"
    lab_file.write_text("kubernetes: false\ntopology: {workers: 0}\n")
    assert cli.run("up", "-f", str(lab_file)).returncode == 0
    try:
        record = cli.record("default")
        assert record is not None
        grandchildren = [pid for child in children_of(record["init_pid"]) for pid in children_of(child)]
        (server,) = [
            pid for pid in grandchildren if b"kubewire.components.runtime" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        ended = os.pidfd_open(server)
        os.kill(server, signal.SIGKILL)
        select.select([ended], [], [], 10)
        os.close(ended)
        done = cli.run("status", "--name", "default", timeout=10)
        assert (done.returncode, done.stdout) == (1, "")
        assert "lab 'default' does not answer" in done.stderr and "Traceback" not in done.stderr
    finally:
        assert cli.run("down").returncode == 0


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
