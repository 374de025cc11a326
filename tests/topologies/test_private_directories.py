"""Which directories a host has for itself: one table that mount(8) reads."""

from __future__ import annotations

from pathlib import Path

from kubewire.topologies.network import bind_files, private_table


def test_each_directory_is_a_tmpfs_of_its_own_and_tmp_is_open_to_all() -> None:
    assert private_table(["/run", "/tmp"], []) == [
        "node-private /run tmpfs nodev,mode=755 0 0",
        "node-private /tmp tmpfs nodev,mode=1777 0 0",
    ]


def test_what_is_shared_comes_back_over_them_from_its_descriptor(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "a b").mkdir()
    (tmp_path / "program").touch()
    shared = [str(tmp_path / name) for name in ("state", "program", "a b")]
    assert private_table([], shared) == [
        f"/proc/self/fd/60/. {tmp_path}/state none bind,X-mount.mkdir 0 0",
        rf"/proc/self/fd/62/. {tmp_path}/a\040b none bind,X-mount.mkdir 0 0",
    ]
    assert f"--bind /proc/self/fd/61 {tmp_path}/program;" in bind_files(shared)
    assert "state" not in bind_files(shared)
