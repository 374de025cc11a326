"""Where a virtual machine's process lives: a shell stands in for the machine and looks around."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from kubewire.vm.jail import NOBODY, Spec, closed_folders
from tests.vm.waiting import until

pytestmark = pytest.mark.packet  # it needs namespaces


@dataclass
class Jail:
    process: subprocess.Popen[bytes]
    lifeline: int
    share: Path

    def cut(self) -> None:
        os.close(self.lifeline)
        self.lifeline = -1


@pytest.fixture
def jail(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., Jail]:
    """jail(script, visible=...): starts it. The shared folder is below a folder that only its owner may enter."""

    def start(script: str, visible: tuple[Path, ...] = ()) -> Jail:
        folder = tmp_path / "private"
        folder.mkdir(mode=0o700)
        share = folder / "share"
        share.mkdir()
        if os.geteuid() == 0:
            os.chown(share, NOBODY, NOBODY)
        spec = Spec(["/bin/sh", "-c", script], str(share), [str(path) for path in visible], size=16)
        (folder / "spec.json").write_text(json.dumps(asdict(spec)))
        read_end, lifeline = os.pipe()
        process = subprocess.Popen(
            [sys.executable, "-m", "kubewire.vm.jail", str(folder / "spec.json"), str(read_end)],
            pass_fds=[read_end],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
        )
        os.close(read_end)
        started = Jail(process, lifeline, share)
        request.addfinalizer(lambda: _end(started))
        return started

    return start


def _end(jail: Jail) -> None:
    if jail.lifeline >= 0:
        jail.cut()
    jail.process.wait(20)


def said(jail: Jail) -> str:
    output, _ = jail.process.communicate(timeout=20)
    return output.decode()


def test_the_exit_code_is_the_machines(jail: Callable[..., Jail]) -> None:
    assert jail("exit 7").process.wait(20) == 7


def test_started_by_root_it_is_nobody_and_cannot_become_more(jail: Callable[..., Jail]) -> None:
    text = said(jail("id -u; id -G; grep -E 'CapEff|NoNewPrivs' /proc/self/status"))
    me = NOBODY if os.geteuid() == 0 else os.geteuid()
    assert text.split()[0] == str(me)
    assert "CapEff:\t0000000000000000" in text
    assert "NoNewPrivs:\t1" in text


def test_it_has_no_network_device_but_an_unused_loopback(jail: Callable[..., Jail]) -> None:
    text = said(jail("tail -n +3 /proc/net/dev | cut -d: -f1; busybox nc 203.0.113.1 80"))
    assert text.splitlines()[0].strip() == "lo"
    assert "Network is unreachable" in text


def test_it_is_alone_with_its_processes(jail: Callable[..., Jail]) -> None:
    """But for PID 1, which waits for it."""
    text = said(jail("echo $$; set -- /proc/[0-9]*; echo $*"))
    assert text.splitlines() == ["2", "/proc/1 /proc/2"]


def test_a_signal_that_it_sends_itself_ends_it(jail: Callable[..., Jail]) -> None:
    """PID 1 of a namespace gets none without a handler: User-mode Linux could not abort when it panics."""
    assert jail("kill -ABRT $$; sleep 86393").process.wait(20) == 128 + signal.SIGABRT


def test_its_keeper_is_not_in_its_process_group(jail: Callable[..., Jail]) -> None:
    """User-mode Linux that panics sends SIGTERM to all of its group; without root the keeper is the same user."""
    text = said(jail("read _ _ _ _ group _ </proc/$$/stat; trap '' TERM; kill -TERM 0; echo $group"))
    assert text == "2\n"  # 0 would be one outside of its namespace


@pytest.mark.parametrize("path", ["/etc/kubewire-was-here", "/var/tmp/kubewire-was-here", "/dev/shm/kubewire-was-here"])
def test_it_cannot_write_the_hosts_files(jail: Callable[..., Jail], path: str) -> None:
    assert "Read-only file system" in said(jail(f"touch {path}"))
    assert not Path(path).exists()


def test_it_can_write_the_shared_folder_though_that_lies_where_only_its_owner_may_look(
    jail: Callable[..., Jail],
) -> None:
    started = jail("echo hello >/tmp/io/answer")
    assert started.process.wait(20) == 0
    assert (started.share / "answer").read_text() == "hello\n"


def test_it_sees_what_it_is_shown_below_a_closed_folder_and_nothing_beside_it(
    jail: Callable[..., Jail], tmp_path: Path
) -> None:
    closed = Path("/var/tmp") / f"kubewire-test-{os.getpid()}"
    closed.mkdir(mode=0o700)
    try:
        (closed / "checkout").mkdir()
        (closed / "checkout/file").write_text("shown")
        (closed / "secret").write_text("hidden")
        text = said(jail(f"cat {closed}/checkout/file; ls {closed}; touch {closed}/checkout/x", (closed / "checkout",)))
        assert text.startswith("shown")
        assert "Read-only file system" in text
        if os.geteuid() == 0:
            assert "secret" not in text
    finally:
        for path in sorted(closed.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        closed.rmdir()


def test_closed_folders_are_the_topmost_that_others_may_not_enter(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(mode=0o700)
    (tmp_path / "a/b").mkdir(mode=0o700)
    found = list(closed_folders([str(tmp_path / "a/b/c"), "/usr/bin"]))
    assert "/usr" not in found
    assert str(tmp_path / "a/b") not in found


def _alive(name: str) -> bool:
    return subprocess.run(["pgrep", "-f", name], capture_output=True).returncode == 0


def test_when_its_starter_is_gone_it_ends_and_its_folder_goes(jail: Callable[..., Jail]) -> None:
    started = jail("touch /tmp/io/up; sleep 86391 & wait")
    until((started.share / "up").exists)
    started.cut()
    started.process.wait(20)
    until(lambda: not _alive("sleep 86391"))
    assert not started.share.parent.exists()


def test_when_its_keeper_is_killed_it_ends_with_all_it_started(jail: Callable[..., Jail]) -> None:
    started = jail("touch /tmp/io/up; setsid sleep 86392 & wait")
    until((started.share / "up").exists)
    started.process.send_signal(signal.SIGKILL)
    started.process.wait(20)
    until(lambda: not _alive("sleep 86392"))
