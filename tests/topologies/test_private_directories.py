"""Which directories a host has for itself: one table that mount(8) reads."""

from __future__ import annotations

from kubewire.topologies.network import private_table


def test_each_directory_is_a_tmpfs_of_its_own_and_tmp_is_open_to_all() -> None:
    assert private_table(["/run", "/tmp"], []) == [
        "node-private /run tmpfs nodev,mode=755 0 0",
        "node-private /tmp tmpfs nodev,mode=1777 0 0",
    ]


def test_what_is_shared_comes_back_over_them_from_its_descriptor() -> None:
    shared = private_table([], ["/run/kubewire/lab", "/tmp/a b"])
    assert shared == [
        "/proc/self/fd/60/. /run/kubewire/lab none bind,X-mount.mkdir 0 0",
        r"/proc/self/fd/61/. /tmp/a\040b none bind,X-mount.mkdir 0 0",
    ]
