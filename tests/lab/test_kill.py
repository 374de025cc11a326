"""kill -9 of the sandbox at any moment leaves nothing on the machine: no process, namespace, mount, interface,
rule or temporary file. The kernel does the teardown; these tests look at what it left."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.lab.kubewire_cli import Cli, until

pytestmark = pytest.mark.lab

#: Seconds that bring-up is likely to take here; later moments hit a lab that is already up.
_BRING_UP = 3.5
_LAB = "topology: {workers: 1}\ndns: {replicas: 1}\n"
#: A bare lab is up at once, and waits for an address that nobody has.
_WAITS = """\
name: waits
title: waits until it is killed
lab: {kubernetes: false, topology: {workers: 1}}
steps:
  - expect:
      - {from: client, http: {url: "http://172.18.0.200/"}, within: 60}
"""


class Namespaces:
    """A process's namespaces, held open: their inode numbers would be given to the next lab's otherwise."""

    def __init__(self, pid: int) -> None:
        self._held = {kind: os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY) for kind in ("net", "mnt", "pid", "ipc")}

    def processes(self) -> list[int]:
        """Those in any of them."""
        wanted = {kind: os.fstat(descriptor).st_ino for kind, descriptor in self._held.items()}
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and any(inode_of(entry, kind) == inode for kind, inode in wanted.items()):
                found.append(int(entry.name))
        return found

    def release(self) -> None:
        for descriptor in self._held.values():
            os.close(descriptor)


def inode_of(process: Path, kind: str) -> int | None:
    """None for a zombie too: it has let go of everything, and only waits for the machine's init to notice."""
    try:
        if (process / "stat").read_text().rpartition(")")[2].split()[0] in "ZX":
            return None
        return (process / "ns" / kind).stat().st_ino
    except OSError:
        return None


def machine_network() -> dict[str, str]:
    """The machine's own interfaces, routes and rules, as text."""
    commands = {
        "links": ["ip", "-o", "link"],
        "addresses": ["ip", "-o", "addr"],
        "routes": ["ip", "route", "show", "table", "all"],
        "rules": ["ip", "rule"],
        "netns": ["ip", "netns"],
        "nft": ["nft", "list", "ruleset"],
    }
    return {name: subprocess.run(argv, capture_output=True, text=True).stdout for name, argv in commands.items()}


def mounts() -> list[str]:
    return Path("/proc/self/mountinfo").read_text().splitlines()


@pytest.mark.parametrize("seed", range(10))
def test_killed_at_three_random_moments_nothing_is_left(seed: int, short_path: Path) -> None:
    """Ten seeds of three: a moment of bring-up, one for the command that started it, one of teardown."""
    moments = random.Random(seed)
    lab_file = short_path / "lab.yaml"
    lab_file.write_text(_LAB)
    network, mounted = machine_network(), mounts()
    kill_first_process(Cli(short_path / "a"), lab_file, moments.uniform(0, _BRING_UP))
    kill_command(Cli(short_path / "b"), lab_file, moments.uniform(0, _BRING_UP))
    kill_during_teardown(Cli(short_path / "c"), lab_file, moments.uniform(0, _BRING_UP), moments.uniform(0, 0.05))
    assert machine_network() == network
    assert mounts() == mounted


def kill_first_process(cli: Cli, lab_file: Path, after: float) -> None:
    up = cli.popen("up", "-f", str(lab_file), "--name", "victim")
    until(lambda: cli.record("victim") is not None or up.poll() is not None, "a sandbox")
    record = cli.record("victim")
    assert record is not None, up.communicate()
    spaces = Namespaces(record["init_pid"])
    wait_or_end(up, after)
    os.kill(record["init_pid"], signal.SIGKILL)
    up.communicate(timeout=30)
    assert_gone(cli, spaces)
    # Either the command saw its lab die and cleaned up, or the lab was up; then `down` removes the record.
    assert cli.run("down", "--name", "victim").returncode == 0
    assert not (cli.state / "victim").exists()


def kill_command(cli: Cli, lab_file: Path, after: float) -> None:
    up = cli.popen("up", "-f", str(lab_file), "--name", "victim")
    until(lambda: cli.record("victim") is not None or up.poll() is not None, "a sandbox")
    record = cli.record("victim")
    assert record is not None, up.communicate()
    spaces = Namespaces(record["init_pid"])
    wait_or_end(up, after)
    up.kill()
    up.communicate(timeout=30)
    if (cli.state / "victim/control.sock").exists():
        # Bring-up was over, or so nearly that nobody can say whether the lab stands on its own by now.
        assert cli.run("down", "--name", "victim").returncode == 0
    assert_gone(cli, spaces)


def kill_during_teardown(cli: Cli, lab_file: Path, after: float, between: float) -> None:
    up = cli.popen("up", "-f", str(lab_file), "--name", "victim")
    until(lambda: cli.record("victim") is not None or up.poll() is not None, "a sandbox")
    record = cli.record("victim")
    assert record is not None, up.communicate()
    spaces = Namespaces(record["init_pid"])
    wait_or_end(up, after)
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(record["init_pid"], number)
        except ProcessLookupError:
            break
        time.sleep(between)  # the moment itself is what this test varies
    up.communicate(timeout=30)
    assert_gone(cli, spaces)


def wait_or_end(process: subprocess.Popen[str], seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        pass


def assert_gone(cli: Cli, spaces: Namespaces) -> None:
    until(lambda: not spaces.processes(), "nobody in the lab's namespaces")
    spaces.release()
    assert list(cli.temporary.iterdir()) == []


def test_an_interrupted_up_leaves_nothing_and_says_so(short_path: Path) -> None:
    cli = Cli(short_path / "cli")
    up = cli.popen("up", "--name", "victim", "--workers", "1")
    until(lambda: cli.record("victim") is not None, "a sandbox")
    record = cli.record("victim")
    assert record is not None
    spaces = Namespaces(record["init_pid"])
    up.send_signal(signal.SIGINT)
    output, _ = up.communicate(timeout=30)
    assert up.returncode == 130
    assert "interrupted by SIGINT" in output
    assert not (cli.state / "victim").exists()
    assert_gone(cli, spaces)


def test_what_a_killed_run_has_left_is_removed_by_the_next_command(short_path: Path) -> None:
    cli = Cli(short_path / "cli")
    scenario = short_path / "waits.scenario.yaml"
    scenario.write_text(_WAITS)
    run = cli.popen("run", str(scenario), "--results", str(short_path / "results"))
    until(lambda: any(cli.state.glob("*/lab.json")), "a record")
    (state,) = cli.state.iterdir()
    until(lambda: cli.record(state.name) is not None or run.poll() is not None, "a sandbox")
    record = cli.record(state.name)
    assert record is not None, run.communicate()
    spaces = Namespaces(record["init_pid"])
    assert state.name in cli.run("status").stdout
    run.kill()
    run.communicate(timeout=30)
    assert_gone(cli, spaces)
    assert state.exists()
    assert cli.run("status").stdout == "no labs; start one with: kubewire up\n"
    assert list(cli.state.iterdir()) == []
