"""State directories: names, records, liveness."""

import json
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kubewire.lab.errors import LabError, UsageError
from kubewire.lab.state import HostRecord, LabRecord, StateDirectory, all_labs, down, find, running, start_time


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KUBEWIRE_STATE_DIR", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", ["", "../x", "Demo", "a" * 41, "-a", "a_b"])
def test_a_name_that_is_not_one_is_refused(base: Path, name: str) -> None:
    with pytest.raises(UsageError, match="is not a lab name"):
        find(name)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def running_in(process: subprocess.Popen[bytes], **fields: Any) -> LabRecord:
    """The record of a lab whose PID 1 is this process."""
    began = start_time(process.pid)
    assert began is not None
    return LabRecord("demo", process.pid, began, 0, {}, **fields)


def test_a_state_directory_is_its_owners_alone(base: Path) -> None:
    state = find("demo")
    assert state.claim(LabRecord.new("demo", {}))
    assert state.path.stat().st_mode & 0o777 == 0o700
    assert (state.path / "lab.json").stat().st_mode & 0o777 == 0o600


def test_a_record_survives_writing_and_reading(base: Path) -> None:
    state = find("demo")
    record = LabRecord("demo", 1, 2, 3, {"name": "x"}, True, [HostRecord("worker-1", "worker", "172.18.0.3", 9)])
    assert state.claim(record)
    assert state.record() == record


@pytest.mark.parametrize(
    "text",
    ["", '{"name": "demo", "init_p', "[]", '{"name": "demo"}', '{"hosts": [{"nam": 1}]}'],
    ids=["empty", "cut off", "not a mapping", "keys missing", "hosts of another shape"],
)
def test_a_record_that_is_not_whole_is_none_and_gives_way(base: Path, text: str) -> None:
    state = find("demo")
    assert state.claim(LabRecord.new("demo", {}))
    (state.path / "lab.json").write_text(text)
    assert state.record() is None
    assert not state.alive()
    successor = LabRecord.new("demo", {})
    assert state.claim(successor)
    assert state.record() == successor


def test_a_directory_without_a_record_gives_way(base: Path) -> None:
    (base / "demo/logs").mkdir(parents=True)
    assert find("demo").claim(LabRecord.new("demo", {}))


def test_a_lab_lives_as_long_as_its_first_process(base: Path, sleeper: subprocess.Popen[bytes]) -> None:
    state = find("demo")
    assert state.claim(running_in(sleeper))
    assert state.alive()
    assert not state.claim(LabRecord.new("demo", {}))
    sleeper.kill()
    sleeper.wait()
    assert not state.alive()
    assert state.claim(LabRecord.new("demo", {}))


def test_a_lab_that_is_coming_up_has_its_name(base: Path, sleeper: subprocess.Popen[bytes]) -> None:
    state, began = find("demo"), start_time(sleeper.pid)
    assert began is not None
    coming = LabRecord("demo", 0, 0, 0, {}, starter=sleeper.pid, starter_start=began, token="first")
    assert state.claim(coming)
    assert not state.claim(LabRecord.new("demo", {}))
    with pytest.raises(UsageError, match="still coming up"):
        running("demo")
    sleeper.kill()
    sleeper.wait()
    assert state.claim(LabRecord.new("demo", {}))


def test_of_many_that_claim_a_name_at_once_one_gets_it(base: Path) -> None:
    start, got = threading.Barrier(8), []

    def claim() -> None:
        record = LabRecord.new("demo", {})
        start.wait()
        if find("demo").claim(record):
            got.append(record)

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1
    assert find("demo").record() == got[0]


def test_who_lost_the_name_neither_writes_nor_removes(base: Path) -> None:
    state, first, second = find("demo"), LabRecord.new("demo", {}), LabRecord.new("demo", {})
    assert state.claim(first)
    state.release(first.token)
    assert state.claim(second)
    with pytest.raises(LabError, match="ended by another command"):
        state.update(first)
    state.release(first.token)
    assert state.record() == second


def test_a_condemned_lab_has_lost_its_name_and_still_nobody_else_gets_it(base: Path) -> None:
    state, record = find("demo"), LabRecord.new("demo", {})
    assert state.claim(record)
    state.condemn("another")
    assert state.holds(record.token)
    state.condemn(record.token)
    assert not state.holds(record.token)
    assert not state.claim(LabRecord.new("demo", {}))
    with pytest.raises(LabError, match="ended by another command"):
        state.update(record)


def test_ending_a_lab_waits_until_its_starter_has_made_the_sandbox(
    base: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    state, record = find("demo"), LabRecord.new("demo", {})
    assert state.claim(record)
    found: list[LabRecord | None] = []
    waiting = threading.Thread(target=lambda: found.append(state.settled()))
    waiting.start()
    started = running_in(sleeper, token=record.token)
    state.update(started)
    waiting.join(10)
    assert found == [started]


def test_killing_a_lab_ends_its_first_process(base: Path, sleeper: subprocess.Popen[bytes]) -> None:
    running_in(sleeper).kill()
    assert sleeper.wait(10) == -signal.SIGKILL


def test_a_lab_without_a_first_process_is_killed_without_harm(base: Path) -> None:
    LabRecord.new("demo", {}).kill()


def test_a_later_process_with_the_same_number_is_not_the_lab_and_is_not_killed(base: Path) -> None:
    record = LabRecord("demo", os.getpid(), 1, 0, {})
    assert not record.alive()
    record.kill()  # would end this test


def test_a_record_of_before_tokens_is_read_and_released(base: Path, sleeper: subprocess.Popen[bytes]) -> None:
    """A lab that an older kubewire has started can be ended by this one."""
    state, record = find("demo"), running_in(sleeper)
    assert state.claim(record)
    old = {key: value for key, value in record.__dict__.items() if key not in ("token", "starter", "starter_start")}
    (state.path / "lab.json").write_text(json.dumps(old))
    assert state.record() == record
    state.release("")
    assert not state.path.exists()


def test_a_lab_of_a_later_kubewire_is_still_found_and_ended(base: Path, sleeper: subprocess.Popen[bytes]) -> None:
    host = HostRecord("worker-1", "worker", "172.18.0.3", 1)
    record = LabRecord("demo", sleeper.pid, start_time(sleeper.pid) or 0, 0, {}, hosts=[host], token="t")
    assert find("demo").claim(record)
    raw = json.loads((base / "demo/lab.json").read_text())
    raw["hosts"][0]["rack"] = raw["colour"] = "new"
    (base / "demo/lab.json").write_text(json.dumps(raw))
    assert find("demo").record() == record
    assert down(find("demo"))
    assert sleeper.wait(10) == -signal.SIGKILL


def test_an_unknown_lab_is_an_error_that_says_how_to_start_one(base: Path) -> None:
    with pytest.raises(UsageError, match="start one with: kubewire up"):
        running("demo")


def test_foreign_files_in_the_base_directory_are_not_labs(base: Path) -> None:
    (base / "Not A Lab").mkdir()
    assert StateDirectory(base / "demo").claim(LabRecord.new("demo", {}))
    assert [lab.name for lab in all_labs()] == ["demo"]


def ended_process() -> tuple[int, int]:
    """Number and start of a process that is no more."""
    with subprocess.Popen(["sleep", "60"]) as process:
        began = start_time(process.pid)
        process.kill()
    assert began is not None
    return process.pid, began


#: Which of the lab's two processes run, what else its record says, and whether the next command removes it.
@pytest.mark.parametrize(
    ("init", "starter", "changes", "removed"),
    [
        ("ended", "ended", {"ready": True, "attached": True}, True),
        ("ended", "ended", {"attached": True}, True),
        ("none", "ended", {}, True),
        ("ended", "ended", {}, True),
        ("ended", "ended", {"condemned": True}, True),
        ("none", "runs", {}, False),
        ("runs", "ended", {}, False),
        ("runs", "ended", {"ready": True}, False),
        ("runs", "ended", {"ready": True, "attached": True}, False),
        ("runs", "runs", {"ready": True, "attached": True}, False),
        ("ended", "runs", {"ready": True, "attached": True}, False),
        ("ended", "runs", {}, False),
        ("ended", "ended", {"ready": True}, False),
        ("ended", "ended", {"attached": True, "origin": "another boot"}, False),
        ("ended", "ended", {"attached": True, "origin": ""}, False),
    ],
    ids=[
        "run was killed",
        "run was killed during bring-up",
        "up was killed before there was a sandbox",
        "up was killed during bring-up",
        "up and down were killed",
        "coming up, before there is a sandbox",
        "the sandbox is about to notice that up was killed",
        "runs, and its up has ended",
        "the sandbox is about to notice that run was killed",
        "run is at work",
        "run is about to report that its lab died",
        "up is about to report that its lab died",
        "up has handed it over, then it died: its logs say why",
        "of another boot, machine or container",
        "of an older kubewire",
    ],
)
def test_the_next_command_removes_what_a_killed_one_has_left(
    base: Path, sleeper: subprocess.Popen[bytes], init: str, starter: str, changes: dict[str, Any], removed: bool
) -> None:
    runs = (sleeper.pid, start_time(sleeper.pid) or 0)
    processes = {"runs": runs, "ended": ended_process(), "none": (0, 0)}
    record = LabRecord.new("demo", {})
    record.init_pid, record.init_start = processes[init]
    record.starter, record.starter_start = processes[starter]
    record = replace(record, **changes)
    assert find("demo").claim(record)
    assert find("other").claim(LabRecord.new("other", {}))
    assert find("demo").path.exists() is not removed
    if not removed:
        assert find("demo").record() == record


def test_looking_for_labs_removes_what_a_killed_command_has_left(base: Path) -> None:
    record = LabRecord.new("demo", {}, attached=True)
    record.starter, record.starter_start = ended_process()
    assert find("demo").claim(record)
    assert list(all_labs()) == []
    assert list(base.iterdir()) == []


@pytest.mark.parametrize(
    ("files", "removed"),
    [
        (["logs/"], True),
        (["logs/", ".lab.json"], True),
        (["logs/", "x"], False),
        (["logs/", "logs/x"], False),
        ([], False),
    ],
    ids=["killed before the record", "killed while writing it", "something else", "a foreign log", "an empty folder"],
)
def test_a_folder_without_a_record_is_removed_only_when_claim_made_all_of_it(
    base: Path, files: list[str], removed: bool
) -> None:
    (base / "demo").mkdir()
    for name in files:
        if name.endswith("/"):
            (base / "demo" / name).mkdir()
        else:
            (base / "demo" / name).touch()
    assert [lab.name for lab in all_labs()] == ([] if removed else ["demo"])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to another user")
def test_another_users_dead_lab_stays(base: Path) -> None:
    record = LabRecord.new("demo", {}, attached=True)
    record.starter, record.starter_start = ended_process()
    assert find("demo").claim(record)
    os.chown(base / "demo", 65534, 65534)
    assert [lab.name for lab in all_labs()] == ["demo"]


def _deep(folder: Path) -> None:
    """Deeper than Python recurses and than a path may be long."""
    descriptor = os.open(folder, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("deep", dir_fd=descriptor)
        below = os.open("deep", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)


def _closed(folder: Path) -> None:
    (folder / "closed").mkdir()
    (folder / "closed/file").touch()
    (folder / "closed").chmod(0)
    folder.chmod(0)


def _many_kinds(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to("/etc")
    (folder / "dangling").symlink_to("/none")
    (folder / ".removed-1").mkdir()
    (folder / ".removed-1/file").touch()
    (folder / "a\nb\x1b[31m").mkdir()


@pytest.mark.parametrize("make", [_deep, _closed, _many_kinds])
@pytest.mark.parametrize("user", [0, 12345])
def test_whatever_a_lab_has_made_of_its_logs_is_removed(make: Callable[[Path], None], user: int) -> None:
    """By `down` and `up`, and with a lab that was killed by whatever command comes next."""
    if os.geteuid() != 0:
        pytest.skip("root is needed to be somebody else")
    # Not tmp_path: pytest's own folder is closed to others, and so deep that pytest itself cannot remove it.
    base = Path(tempfile.mkdtemp(prefix="kw-"))
    os.chown(base, user, user)
    child = os.fork()
    if child == 0:
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        code = 1
        with suppress(BaseException):
            state = StateDirectory(base / "demo")
            for remove in (lambda: state.release(""), state.remove_if_dead):
                # Of an earlier time: its starter is gone, and it had not come up.
                assert state.claim(replace(LabRecord.new("demo", {}), starter=0, token=""))
                make(state.logs)
                remove()
                assert list(base.iterdir()) == []
            code = 0
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    base.rmdir()


def _of_somebody_else(folder: Path) -> None:
    os.chown(folder, 23456, 23456)


def _open_to_all(folder: Path) -> None:
    folder.chmod(0o777)


def _open_to_all_and_sticky(folder: Path) -> None:
    folder.chmod(0o1777)


@pytest.mark.parametrize("spoil", [_of_somebody_else, _open_to_all, _open_to_all_and_sticky])
@pytest.mark.parametrize("where", ["made/state", "made"])
def test_a_place_that_others_can_change_is_refused(
    short_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], None], where: str
) -> None:
    """A kubeconfig there could be anybody's. A sticky folder above (/tmp) is right: nobody can rename what is ours."""
    if os.geteuid() != 0:
        pytest.skip("root is needed to give a folder to somebody else")
    made = short_path / "made"
    made.mkdir()
    monkeypatch.setenv("KUBEWIRE_STATE_DIR", str(short_path / where))
    assert find("demo").claim(LabRecord.new("demo", {}))
    spoil(made)
    if spoil is _open_to_all_and_sticky and where != "made":
        assert [state.name for state in all_labs()] == ["demo"]
        return
    for use in (lambda: find("demo"), lambda: list(all_labs()), lambda: running("demo")):
        with pytest.raises(UsageError, match="other users could change"):
            use()
