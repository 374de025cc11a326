"""The shared folder: what the host puts there, and what it takes back from a guest that nobody trusts."""

import json
import os
from pathlib import Path

import pytest

from kubewire.vm.share import Follower, Job, Share, collect, exit_code


@pytest.fixture
def share(tmp_path: Path) -> Share:
    made = Share(tmp_path / "share")
    made.make({"hostname": "x"})
    return made


def test_a_guest_is_told_what_it_is_and_gets_its_init(share: Share) -> None:
    assert json.loads((share.folder / "guest.json").read_text()) == {"hostname": "x"}
    assert "PID 1 of the virtual machine" in (share.folder / "init.py").read_text()


def test_jobs_are_numbered_and_say_what_to_run(share: Share) -> None:
    folders = [share.submit(Job(["echo", str(n)], cwd="/x", env={"A": "b"})) for n in (1, 2)]
    assert [folder.name for folder in folders] == ["1", "2"]
    told = json.loads((folders[1] / "job.json").read_text())
    assert told == {"argv": ["echo", "2"], "cwd": "/x", "env": {"A": "b"}, "outputs": []}


def test_a_job_finds_in_its_outputs_what_was_there_before(share: Share, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results/results.json").write_text("earlier")
    folder = share.submit(Job(["true"], outputs=[tmp_path / "results"]))
    assert (folder / "outputs/0/results.json").read_text() == "earlier"


def test_an_output_folder_that_is_not_there_is_made(share: Share, tmp_path: Path) -> None:
    share.submit(Job(["true"], outputs=[tmp_path / "a/b"]))
    assert (tmp_path / "a/b").is_dir()


@pytest.mark.parametrize(
    ("content", "code"), [("0\n", 0), ("7\n", 7), ("", None), ("x\n", None)], ids=["0", "7", "empty", "no number"]
)
def test_the_exit_code_is_what_rc_says(tmp_path: Path, content: str, code: int | None) -> None:
    (tmp_path / "rc").write_text(content)
    assert exit_code(tmp_path) == code


def test_without_rc_there_is_no_exit_code(tmp_path: Path) -> None:
    assert exit_code(tmp_path) is None


def test_an_rc_that_is_a_link_is_none(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("0")
    (tmp_path / "rc").symlink_to(tmp_path / "elsewhere")
    assert exit_code(tmp_path) is None


def test_a_follower_gives_what_is_new(tmp_path: Path) -> None:
    follower = Follower(tmp_path / "stdout")
    assert follower.read() == b""
    with (tmp_path / "stdout").open("wb", buffering=0) as stream:
        stream.write(b"one")
        assert follower.read() == b"one"
        assert follower.read() == b""
        stream.write(b"two")
        assert follower.read() == b"two"
    follower.close()


def test_folders_and_files_come_back_over_what_was_there(tmp_path: Path) -> None:
    source, target = tmp_path / "from", tmp_path / "to"
    (source / "captures").mkdir(parents=True)
    (source / "captures/a.pcapng").write_bytes(b"packets")
    (source / "report.html").write_text("new")
    target.mkdir()
    (target / "report.html").write_text("old, and longer")
    (target / "kept").write_text("of another run")
    collect(source, target)
    assert (target / "captures/a.pcapng").read_bytes() == b"packets"
    assert (target / "report.html").read_text() == "new"
    assert (target / "kept").read_text() == "of another run"


def test_links_fifos_and_what_they_hide_do_not_come_back(tmp_path: Path) -> None:
    source, secret = tmp_path / "from", tmp_path / "secret"
    source.mkdir()
    secret.mkdir()
    (secret / "key").write_text("private")
    (source / "file").symlink_to(secret / "key")
    (source / "folder").symlink_to(secret)
    os.mkfifo(source / "fifo")
    collect(source, tmp_path / "to")
    assert list((tmp_path / "to").iterdir()) == []


def test_a_link_in_the_target_is_replaced_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "from/report").write_text("new")
    (tmp_path / "to").mkdir()
    (tmp_path / "precious").write_text("old")
    (tmp_path / "to/report").symlink_to(tmp_path / "precious")
    collect(tmp_path / "from", tmp_path / "to")
    assert (tmp_path / "precious").read_text() == "old"
    assert (tmp_path / "to/report").read_text() == "new"
