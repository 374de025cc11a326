"""Files replaced as a whole, and what inotify and rtnetlink tell."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import stat
import struct
from pathlib import Path

import pytest

from kubewire.components.kernel import files, inotify, rtnetlink
from kubewire.components.kernel.command import run
from tests.scratch import isolated


def test_a_file_is_replaced_as_a_whole_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "made" / "kubeconfig"
    files.replace(path, b"old", 0o600)
    held = path.open("rb")
    files.replace(path, b"new", 0o600)
    assert (held.read(), path.read_bytes()) == (b"old", b"new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["kubeconfig"]


def test_a_file_that_cannot_be_replaced_stays_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    with pytest.raises(OSError):
        files.replace(tmp_path / "folder", b"x")
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_inotify_says_what_has_happened(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text("a")

    async def watch() -> list[int]:
        with inotify.Watch(path, inotify.IN_MODIFY | inotify.IN_MOVE_SELF) as watched:
            path.write_text("b")
            seen = [await watched.changed()]
            path.rename(tmp_path / "elsewhere")
            seen.append(await watched.changed())
            (tmp_path / "elsewhere").unlink()
            seen.append(await watched.changed())
            return seen

    modified, moved, gone = asyncio.run(watch())
    assert modified & inotify.IN_MODIFY
    assert moved == inotify.IN_MOVE_SELF
    assert gone == inotify.IN_IGNORED
    with pytest.raises(OSError, match="No such file"):
        asyncio.run(watch())


class NoInstances:
    """libc where the user has as many inotify instances as the kernel allows."""

    def inotify_init1(self, _flags: int) -> int:
        ctypes.set_errno(errno.EMFILE)
        return -1


def test_without_an_instance_the_path_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inotify, "_libc", NoInstances())
    monkeypatch.setattr(inotify, "_LOOK_SECONDS", 0.001)
    folder = tmp_path / "net.d"
    folder.mkdir()

    async def watch() -> list[int]:
        with inotify.Watch(folder) as watched:
            (folder / "10-flannel.conflist").write_text("a")
            seen = [await watched.changed()]
            (folder / "10-flannel.conflist").unlink()
            seen.append(await watched.changed())
            folder.rmdir()
            while not seen[-1] & inotify.IN_IGNORED:
                seen.append(await watched.changed())
            return seen

    created, deleted, *_, gone = asyncio.run(asyncio.wait_for(watch(), 30))
    assert created & inotify.IN_CREATE and deleted & inotify.IN_DELETE and gone & inotify.IN_IGNORED
    with pytest.raises(OSError, match="No such file"):
        asyncio.run(watch())


def test_messages_of_a_datagram() -> None:
    first = struct.pack("=IHHII", 16 + 5, rtnetlink.NEWLINK, 0, 0, 0) + b"abcde" + bytes(3)
    second = struct.pack("=IHHII", 16 + 4, rtnetlink.DELROUTE, 0, 0, 0) + b"wxyz"
    assert list(rtnetlink.messages(first + second)) == [(rtnetlink.NEWLINK, b"abcde"), (rtnetlink.DELROUTE, b"wxyz")]
    assert list(rtnetlink.messages(first + b"\0" * 16)) == [(rtnetlink.NEWLINK, b"abcde")], "a length of 0 ends it"


def told() -> int:
    async def watch() -> int:
        links, routes = asyncio.Event(), asyncio.Event()
        told = 0

        def route() -> None:
            nonlocal told
            told += 1
            routes.set()

        of_links = rtnetlink.Watch(rtnetlink.LINKS, links.set)
        of_routes = rtnetlink.Watch(
            rtnetlink.IPV4_ROUTES,
            route,
            lambda kind, payload: kind == rtnetlink.NEWROUTE and payload[5] != rtnetlink.RTPROT_KERNEL,
        )
        of_links.start()
        of_routes.start()
        await run(["ip", "link", "add", "one", "type", "veth"], check=True)
        await links.wait()
        await run(["ip", "link", "set", "one", "up"], check=True)
        await run(["ip", "address", "add", "10.0.0.1/24", "dev", "one"], check=True)
        await run(["ip", "route", "add", "10.1.0.0/24", "via", "10.0.0.2"], check=True)
        await routes.wait()
        of_links.close()
        of_routes.close()
        return told

    return asyncio.run(watch())


@pytest.mark.packet
def test_rtnetlink_tells_what_concerns() -> None:
    assert isolated(told) == 1, "the routes that the kernel makes with an address do not count"
