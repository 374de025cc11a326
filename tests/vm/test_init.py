"""The guest's agent, run as an ordinary process: it starts jobs, passes on what they say, and tells how they ended."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubewire.vm.share import INIT, Job, Share, exit_code
from tests.vm.waiting import until

_AGENT = """
import importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("init", sys.argv[1])
init = importlib.util.module_from_spec(spec)
spec.loader.exec_module(init)
init.Agent(Path(sys.argv[2]), resident=sys.argv[3] == "resident").run()
"""


@pytest.fixture
def share(tmp_path: Path) -> Share:
    made = Share(tmp_path / "share")
    made.make({})
    return made


def agent(share: Share, kind: str = "once") -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", _AGENT, str(INIT), str(share.folder), kind])


@pytest.fixture
def resident(share: Share) -> Iterator[subprocess.Popen[bytes]]:
    process = agent(share, "resident")
    yield process
    process.kill()
    process.wait()


def run(share: Share, argv: list[str], **about: object) -> Path:
    folder = share.submit(Job(argv, **about))  # type: ignore[arg-type]
    assert agent(share).wait(20) == 0
    return folder


def test_output_and_exit_code_come_back(share: Share) -> None:
    job = run(share, ["sh", "-c", "echo said; echo complained >&2; exit 7"])
    assert (job / "stdout").read_text() == "said\n"
    assert (job / "stderr").read_text() == "complained\n"
    assert exit_code(job) == 7


def test_a_command_that_a_signal_ended_has_a_shells_exit_code(share: Share) -> None:
    assert exit_code(run(share, ["sh", "-c", "kill -9 $$"])) == 128 + signal.SIGKILL


def test_a_program_that_there_is_not_is_127_and_says_so(share: Share) -> None:
    job = run(share, ["no-such-program"])
    assert exit_code(job) == 127
    assert "no-such-program: No such file or directory" in (job / "stderr").read_text()


def test_a_lot_of_output_comes_back_whole(share: Share) -> None:
    job = run(share, [sys.executable, "-c", "print('x' * 3_000_000)"])
    assert (job / "stdout").stat().st_size == 3_000_001


def test_a_job_has_its_folder_and_environment(share: Share, tmp_path: Path) -> None:
    job = run(share, ["sh", "-c", "pwd; echo $GREETING"], cwd=str(tmp_path), env={"GREETING": "hello"})
    assert (job / "stdout").read_text() == f"{tmp_path}\nhello\n"


def test_a_daemon_that_keeps_the_output_open_is_not_waited_for(share: Share) -> None:
    job = run(share, ["sh", "-c", "sleep 1000 & echo $!"])
    assert exit_code(job) == 0
    os.kill(int((job / "stdout").read_text()), signal.SIGKILL)


def test_several_jobs_run_at_the_same_time(share: Share, tmp_path: Path) -> None:
    """Each opens its end of a fifo, which blocks until the other does too."""
    os.mkfifo(tmp_path / "meeting")
    reader = share.submit(Job(["cat", str(tmp_path / "meeting")]))
    writer = share.submit(Job(["sh", "-c", f"echo met >{tmp_path}/meeting"]))
    assert agent(share).wait(20) == 0
    assert (exit_code(reader), exit_code(writer)) == (0, 0)
    assert (reader / "stdout").read_text() == "met\n"


def test_a_resident_agent_takes_one_job_after_the_other_until_it_is_told_to_stop(
    share: Share, resident: subprocess.Popen[bytes]
) -> None:
    for code in (1, 2):
        job = share.submit(Job(["sh", "-c", f"exit {code}"]))
        until(lambda job=job: exit_code(job) is not None)  # type: ignore[misc]
        assert exit_code(job) == code
    share.stop()
    assert resident.wait(20) == 0
