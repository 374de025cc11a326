"""Non-blocking descriptors (pipes, socket pairs) in an asyncio loop, without a transport object for each."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

_CHUNK = 32 * 1024


async def _ready(descriptor: int, *, write: bool) -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    add, remove = (loop.add_writer, loop.remove_writer) if write else (loop.add_reader, loop.remove_reader)

    def ready() -> None:
        if not future.done():
            future.set_result(None)

    add(descriptor, ready)
    try:
        await future
    finally:
        remove(descriptor)


async def read_chunks(descriptor: int) -> AsyncIterator[bytes]:
    """What arrives, until end of file; a broken peer (EIO of a terminal, reset) is an end as well."""
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
    """Raises BrokenPipeError when nobody reads any more."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            await _ready(descriptor, write=True)
