"""inotify(7) for asyncio: waits for changes of a file or a directory without polling.

The kernel gives a user, with all labs that this user runs, 128 instances
(fs.inotify.max_user_instances). A lab of a hundred nodes needs most of them. A process that gets
none looks at the path once a second.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from types import TracebackType

IN_MODIFY = 0x2
IN_CLOSE_WRITE = 0x8
IN_MOVED_FROM = 0x40
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_MOVE_SELF = 0x800
IN_IGNORED = 0x8000
DIRECTORY_CHANGES = IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE

#: struct inotify_event without the name that follows it.
_EVENT = struct.Struct("iIII")
_libc = ctypes.CDLL(None, use_errno=True)
#: Between two looks at a path that no inotify instance watches.
_LOOK_SECONDS = 1.0


def _masks(data: bytes) -> Iterator[int]:
    """The masks of the events that read(2) returned."""
    offset = 0
    while offset < len(data):
        _, mask, _, length = _EVENT.unpack_from(data, offset)
        yield mask
        offset += _EVENT.size + length


#: Name, inode, size and time of the last change of the path, and of what the directory holds.
_State = list[tuple[str, int, int, int]]


def _state(path: Path) -> _State:
    """Raises OSError."""
    entries = sorted(path.iterdir()) if path.is_dir() else []
    found = []
    for one in (path, *entries):
        with suppress(FileNotFoundError) if one is not path else nullcontext():
            seen = one.stat()
            found.append((one.name, seen.st_ino, seen.st_size, seen.st_mtime_ns))
    return found


class Watch:
    """A context manager. changed() returns at the next change after its last return. Raises OSError
    if the path cannot be watched."""

    def __init__(self, path: Path, mask: int = DIRECTORY_CHANGES) -> None:
        self._path = path
        self._mask = mask
        self._event = asyncio.Event()
        self._seen = 0
        self._fd = -1
        self._looking: asyncio.Task[None] | None = None

    def __enter__(self) -> Watch:
        self._fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            if (number := ctypes.get_errno()) != errno.EMFILE:
                raise OSError(number, "inotify_init1")
            looking = self._look(_state(self._path))
            self._looking = asyncio.get_running_loop().create_task(looking)
            return self
        if (
            _libc.inotify_add_watch(self._fd, os.fsencode(self._path), ctypes.c_uint32(self._mask))
            < 0
        ):
            number = ctypes.get_errno()
            os.close(self._fd)
            raise OSError(number, f"inotify_add_watch {self._path}: {os.strerror(number)}")
        asyncio.get_running_loop().add_reader(self._fd, self._read)
        return self

    def _read(self) -> None:
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        for mask in _masks(data):
            self._seen |= mask
        self._event.set()

    async def _look(self, before: _State) -> None:
        """Reports a change of what the path shows as all events that the caller waits for, except
        that it cannot tell that a file was moved."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                now = _state(self._path)
            except FileNotFoundError:
                self._seen |= IN_IGNORED
                self._event.set()
                return
            if now != before:
                before = now
                self._seen |= self._mask & ~IN_MOVE_SELF
                self._event.set()

    async def changed(self) -> int:
        """The bits of all events since the last call; IN_IGNORED if the watched path was
        deleted."""
        await self._event.wait()
        self._event.clear()
        seen = self._seen
        self._seen = 0
        return seen

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._looking is not None:
            self._looking.cancel()
            return
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)
