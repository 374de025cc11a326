"""Starting and ending labs of one name from several commands at once, and what a start that fails takes back."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubewire.components.runtime import wire
from kubewire.lab import cli, launch
from kubewire.lab.errors import BringUpFailed, UsageError
from kubewire.lab.state import HostRecord, LabRecord, down, find, start_time
from kubewire.scenarios.engine.file.spec import LabSpec
from tests.lab.kubewire_cli import ROOT, Cli, until
from tests.lab.test_kill import Namespaces, assert_gone


@pytest.fixture
def base(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KUBEWIRE_STATE_DIR", str(short_path))
    monkeypatch.setattr(launch, "raise_on_signals", lambda: None)  # pytest's own handlers stay
    return short_path


def silent(event: object) -> None:
    """No progress shown."""


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """What is longer cannot be written: as on a full disk, a write ends with an OSError (setrlimit(2))."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_disk_without_room_for_the_record_fails_the_step_and_leaves_nothing(base: Path) -> None:
    with largest_file(100), pytest.raises(BringUpFailed, match=r"(?s)make the state directory.*File too large"):
        launch.up(LabSpec(), "demo", silent)
    assert list(base.iterdir()) == []


def test_a_base_directory_that_is_a_file_is_said(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (base / "file").touch()
    monkeypatch.setenv("KUBEWIRE_STATE_DIR", str(base / "file"))
    with pytest.raises(BringUpFailed, match=r"(?s)make the state directory.*File exists"):
        launch.up(LabSpec(), "demo", silent)


def test_a_start_that_fails_leaves_no_descriptor_open(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    before = open_descriptors()
    with pytest.raises(BringUpFailed, match="make the sandbox"):
        launch.up(LabSpec(), "demo", silent)
    assert open_descriptors() == before
    assert list(base.iterdir()) == []


def test_a_second_up_of_a_name_leaves_the_first_alone(base: Path) -> None:
    first = LabRecord.new("demo", {})  # this process is at work on it
    assert find("demo").claim(first)
    with pytest.raises(UsageError, match="already running"):
        launch.up(LabSpec(), "demo", silent)
    assert find("demo").record() == first


@pytest.mark.parametrize("command", [["status", "--name", "demo"], ["node", "--name", "demo", "worker-1"]])
def test_a_lab_that_has_no_hosts_yet_is_said_to_be_coming_up(
    base: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    began = start_time(os.getpid())
    assert began is not None
    assert find("demo").claim(LabRecord("demo", os.getpid(), began, 0, LabSpec().as_dict()))
    assert cli.main(command) == 2
    assert capsys.readouterr().err == "kubewire: lab 'demo' is still coming up; try again in a moment\n"


def test_a_lab_whose_fork_server_has_died_says_where_to_look(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    began, host = start_time(os.getpid()), HostRecord("worker-1", "worker", "172.18.0.3", 1)
    assert began is not None
    assert find("demo").claim(LabRecord("demo", os.getpid(), began, 0, LabSpec().as_dict(), True, [host]))
    assert cli.main(["status", "--name", "demo"]) == 1
    said = capsys.readouterr().err
    assert "lab 'demo' does not answer" in said
    assert f"see {base}/demo/logs/runtime.log" in said


def test_down_removes_what_an_up_that_was_killed_left(base: Path) -> None:
    with subprocess.Popen(["true"]) as ended:
        pass
    state = find("demo")
    assert state.claim(LabRecord("demo", 0, 0, 0, {}, starter=ended.pid, starter_start=1, token="x"))
    assert down(state)
    assert not down(state)
    assert list(base.iterdir()) == []


def test_ctrl_c_before_there_is_anything_to_clean_up_ends_without_a_traceback() -> None:
    code = (
        "import os, signal, kubewire.lab.cli, kubewire.lab.__main__\n"
        "kubewire.lab.cli.main = lambda: os.kill(os.getpid(), signal.SIGINT)\n"
        "kubewire.lab.__main__.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


@pytest.mark.lab
def test_two_ups_of_one_name_at_the_same_moment_make_one_lab(short_path: Path) -> None:
    kubewire = Cli(short_path / "cli")
    both = [kubewire.popen("up", "--name", "twin", "--workers", "1") for _ in range(2)]
    outputs = [up.communicate(timeout=120)[0] for up in both]
    assert sorted(up.returncode for up in both) == [0, 2], outputs
    assert "lab 'twin' is already running" in outputs[both.index(next(up for up in both if up.returncode))]
    assert kubewire.run("kubectl", "--name", "twin", "get", "--raw", "/readyz").stdout == "ok"
    assert kubewire.run("down", "--name", "twin").stdout == "lab twin is down\n"


@pytest.mark.lab
@pytest.mark.parametrize("with_sandbox", [False, True], ids=["from its first moment", "when it has its sandbox"])
def test_down_ends_a_lab_that_is_coming_up(short_path: Path, with_sandbox: bool) -> None:
    kubewire = Cli(short_path / "cli")
    up = kubewire.popen("up", "--name", "victim", "--workers", "1")
    if with_sandbox:
        until(lambda: kubewire.record("victim") is not None, "a sandbox")
    else:
        until(lambda: (kubewire.state / "victim/lab.json").exists(), "a record")
    down = kubewire.run("down", "--name", "victim")
    output, _ = up.communicate(timeout=30)
    assert down.stdout == "lab victim is down\n", down.stderr
    assert up.returncode == 1
    assert "Traceback" not in output
    assert "`kubewire down` ended it" in output or "was ended by another command" in output
    assert not (kubewire.state / "victim").exists()


@pytest.mark.lab
def test_a_lab_that_is_killed_says_in_which_step(short_path: Path) -> None:
    kubewire = Cli(short_path / "cli")
    up = kubewire.popen("up", "--name", "victim", "--workers", "1")
    assert up.stdout is not None
    said = up.stdout.readline()
    record = kubewire.record("victim")
    assert record is not None
    os.kill(record["init_pid"], signal.SIGKILL)
    rest, _ = up.communicate(timeout=30)
    assert "fork server" in said
    # The first step is done; whether the second has begun by now, only the lab knows.
    steps = r"(fork server|network: 2 nodes, one-segment)"
    assert re.search(rf"step failed: {steps}\n  the sandbox ended without an error message", rest), rest


@pytest.mark.lab
def test_a_second_signal_does_not_stop_the_clean_up(short_path: Path) -> None:
    kubewire = Cli(short_path / "cli")
    up = kubewire.popen("up", "--name", "victim", "--workers", "1")
    until(lambda: kubewire.record("victim") is not None, "a sandbox")
    record = kubewire.record("victim")
    assert record is not None
    spaces = Namespaces(record["init_pid"])
    while up.poll() is None:
        up.send_signal(signal.SIGTERM)
    output, _ = up.communicate()
    assert up.returncode == 130
    assert "interrupted by SIGTERM" in output
    assert not (kubewire.state / "victim").exists()
    assert_gone(kubewire, spaces)


@pytest.mark.lab
def test_sigterm_while_the_sandbox_is_being_made_leaves_nothing(short_path: Path) -> None:
    kubewire = Cli(short_path / "cli")
    up = kubewire.popen("up", "--name", "victim", "--workers", "1")
    until(lambda: (kubewire.state / "victim/lab.json").exists(), "a record")
    up.terminate()
    output, _ = up.communicate(timeout=30)
    assert up.returncode == 130, output
    assert "interrupted by SIGTERM" in output
    assert list(kubewire.state.iterdir()) == []


_ESCAPES = "\x1b]0;title\x07 \x9b31m red \r\x08"
_LIED = {
    "an error": {"error": {"kind": "RuntimeApiError", "message": _ESCAPES}},
    "a process": {
        "result": [
            {
                "id": "1",
                "pid": 7,
                "name": _ESCAPES,
                "labels": {"component": _ESCAPES, "host": "worker-1"},
                "started_at": 1.0,
            }
        ]
    },
}


@pytest.mark.parametrize("answer", list(_LIED.values()), ids=list(_LIED))
def test_what_a_lab_says_of_itself_cannot_control_the_terminal(
    base: Path, capsys: pytest.CaptureFixture[str], answer: dict[str, Any]
) -> None:
    """A privileged process of the lab can answer in the fork server's place."""
    began, host = start_time(os.getpid()), HostRecord("worker-1", "worker", "172.18.0.3", 1)
    assert began is not None
    state = find("demo")
    assert state.claim(LabRecord("demo", os.getpid(), began, 0, LabSpec().as_dict(), True, [host]))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(state.runtime_socket))
        listener.listen()

        def lie() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(wire.encode({"n": 1, **answer}))

        liar = threading.Thread(target=lie)
        liar.start()
        cli.main(["status", "--name", "demo"])
        liar.join()
    said = "".join(capsys.readouterr())
    assert "?31m red" in said
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", said)


@pytest.mark.parametrize("name", ["missing", "folder", "text"])
def test_what_is_no_program_cannot_take_a_components_place(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").touch(0o644)
    spec = LabSpec.parse({"components": [{"name": "kube-proxy", "program": f"{tmp_path}/{name}"}]})
    with pytest.raises(UsageError) as error:
        launch.up(spec, "no-such-lab", print)
    assert str(error.value) == f"components[0].program: {tmp_path}/{name} is no executable file of this machine"
    assert not find("no-such-lab").path.exists()
