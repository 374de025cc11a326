"""What a user gets wrong is answered with the file, the key and what is right; nothing is left behind."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.lab.kubewire_cli import Cli


@pytest.fixture
def cli(short_path: Path) -> Cli:
    return Cli(short_path / "cli")


def test_a_state_directory_too_long_for_sockets_is_said(tmp_path: Path) -> None:
    done = Cli(tmp_path / ("x" * 100)).run("up")
    assert done.returncode == 2
    assert "set KUBEWIRE_STATE_DIR to a shorter path" in done.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("topologie: {workers: 2}", "topologie"),
        ("topology: {workers: many}", "workers"),
        ("network: {clusterCIDR: 172.18.0.0/16}", "overlap"),
        ("network: {serviceCIDR: 10.244.0.0/20}", "overlap"),
        ("cni: {plugin: kindnet}", "kindnet"),
        ("kubeProxy: {mode: turbo}", "turbo"),
        ("topology: [", "lab.yaml"),
    ],
    ids=lambda text: text[:40],
)
def test_a_wrong_lab_file_is_named_with_its_key(cli: Cli, tmp_path: Path, text: str, says: str) -> None:
    lab_file = tmp_path / "lab.yaml"
    lab_file.write_text(text)
    done = cli.run("up", "-f", str(lab_file))
    assert done.returncode == 2
    assert str(lab_file) in done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not (cli.state / "default").exists()


@pytest.mark.parametrize("text", ["", "topology:", "[1]", "topology: ["], ids=["empty", "null", "a list", "no YAML"])
def test_workers_on_the_command_line_are_checked_with_the_lab_file(cli: Cli, tmp_path: Path, text: str) -> None:
    lab_file = tmp_path / "lab.yaml"
    lab_file.write_text(text)
    done = cli.run("up", "-f", str(lab_file), "--workers", "-1")
    assert done.returncode == 2
    assert done.stderr.startswith(f"kubewire: {lab_file}")
    assert "Traceback" not in done.stderr


def test_a_missing_lab_file_is_named(cli: Cli) -> None:
    done = cli.run("up", "-f", "no-such.yaml")
    assert done.returncode == 2
    assert "no-such.yaml: No such file or directory" in done.stderr


def test_a_port_in_use_is_said_with_the_way_out(cli: Cli) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = cli.run("up", "--api-port", str(port))
    assert done.returncode == 2
    assert f"port {port} on 127.0.0.1 is already in use" in done.stderr
    assert not (cli.state / "default").exists()


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["up", "--api-port", "99999"], "argument --api-port: 99999 is not a port"),
        (["up", "--api-port", "-1"], "argument --api-port: -1 is not a port"),
        (["up", "--name", ""], "'' is not a lab name"),
        (["run", "-j", "0"], "argument -j/--jobs: the number of labs must be at least 1, not 0"),
        (["run", "/no/such.scenario.yaml"], "/no/such.scenario.yaml: no such file or folder"),
        (["down", "demo-1"], "kubewire down: error: unrecognized arguments: demo-1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_argument_is_said_with_what_is_right(cli: Cli, command: list[str], says: str) -> None:
    done = cli.run(*command)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not cli.state.exists()


@pytest.mark.parametrize("command", [["kubectl", "get", "pods"], ["node", "worker-1"], ["status", "--name", "default"]])
def test_a_command_on_a_lab_that_is_not_there_says_how_to_start_one(cli: Cli, command: list[str]) -> None:
    done = cli.run(*command)
    assert done.returncode == 2
    assert "start one with: kubewire up" in done.stderr


def test_down_without_a_lab_is_no_error(cli: Cli) -> None:
    done = cli.run("down")
    assert (done.returncode, done.stdout) == (0, "no lab default; nothing to do\n")


def test_help_teaches_with_examples(cli: Cli) -> None:
    done = cli.run("--help")
    assert done.returncode == 0
    assert "sudo kubewire demo" in done.stdout
    assert "exit codes" in done.stdout
