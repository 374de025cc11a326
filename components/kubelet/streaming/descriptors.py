"""Reads and writes non-blocking descriptors (pipes, socket pairs) in an asyncio loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

_CHUNK = 32 * 1024


async def _ready(descriptor: int, *, write: bool) -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    add = loop.add_writer if write else loop.add_reader
    remove = loop.remove_writer if write else loop.remove_reader

    def ready() -> None:
        if not future.done():
            future.set_result(None)

    add(descriptor, ready)
    try:
        await future
    finally:
        remove(descriptor)


async def read_chunks(descriptor: int) -> AsyncIterator[bytes]:
    """Yields what arrives until end of file, or an error (EIO of a terminal, a reset)."""
    while True:
        try:
            chunk = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            await _ready(descriptor, write=False)
            continue
        except OSError:
            return
        if not chunk:
            return
        yield chunk


async def write_all(descriptor: int, data: bytes) -> None:
    """Writes all data. Raises BrokenPipeError if the other end is closed."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            await _ready(descriptor, write=True)
