"""State directories: names, records, liveness."""

import os
import subprocess
from pathlib import Path

import pytest

from lab.errors import UsageError
from lab.state import HostRecord, LabRecord, StateDirectory, all_labs, find, running, start_time


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KUBEWIRE_STATE_DIR", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", ["", "../x", "Demo", "a" * 41, "-a", "a_b"])
def test_a_name_that_is_not_one_is_refused(base: Path, name: str) -> None:
    with pytest.raises(UsageError, match="is not a lab name"):
        find(name)


def test_a_state_directory_is_its_owners_alone(base: Path) -> None:
    state = find("demo")
    state.create()
    assert state.path.stat().st_mode & 0o777 == 0o700


def test_a_record_survives_writing_and_reading(base: Path) -> None:
    state = find("demo")
    state.create()
    record = LabRecord("demo", 1, 2, 3, {"name": "x"}, True, [HostRecord("worker-1", "worker", "172.18.0.3", 9)])
    state.write(record)
    assert state.record() == record


def test_a_lab_lives_as_long_as_its_first_process(base: Path) -> None:
    state = find("demo")
    state.create()
    with subprocess.Popen(["sleep", "60"]) as process:
        began = start_time(process.pid)
        assert began is not None
        state.write(LabRecord("demo", process.pid, began, 0, {}))
        assert state.alive()
        process.kill()
        process.wait()
        assert not state.alive()


def test_a_later_process_with_the_same_number_is_not_the_lab_and_is_not_killed(base: Path) -> None:
    state = find("demo")
    state.create()
    state.write(LabRecord("demo", os.getpid(), 1, 0, {}))
    assert not state.alive()
    state.kill()  # would end this test


def test_an_unknown_lab_is_an_error_that_says_how_to_start_one(base: Path) -> None:
    with pytest.raises(UsageError, match="start one with: kubewire up"):
        running("demo")


def test_foreign_files_in_the_base_directory_are_not_labs(base: Path) -> None:
    (base / "Not A Lab").mkdir()
    StateDirectory(base / "demo").create()
    assert [lab.name for lab in all_labs()] == ["demo"]
