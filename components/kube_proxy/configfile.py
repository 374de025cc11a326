"""Tells when a configuration file is written or moved away: upstream then ends, and whoever started it starts it
again with the new content."""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct

_MODIFY, _MOVE_SELF = 0x2, 0x800
_EVENT = struct.Struct("iIII")


class ConfigFileChanged(Exception):
    def __init__(self) -> None:
        super().__init__("content of the proxy server's configuration file was updated")


async def until_changed(path: str) -> None:
    """Raises ConfigFileChanged, or OSError when the file cannot be watched. Deleting it is no change."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor < 0 or libc.inotify_add_watch(descriptor, os.fsencode(path), _MODIFY | _MOVE_SELF) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    loop, seen = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, seen.set)
    try:
        while True:
            await seen.wait()
            seen.clear()
            if any(mask & (_MODIFY | _MOVE_SELF) for mask in _masks(os.read(descriptor, 4096))):
                raise ConfigFileChanged
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _masks(data: bytes) -> list[int]:
    masks, at = [], 0
    while at < len(data):
        _, mask, _, length = _EVENT.unpack_from(data, at)
        masks.append(mask)
        at += _EVENT.size + length
    return masks
