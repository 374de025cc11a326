"""The kubelet's streams, live: a real connection of a socket pair, the product's handlers, and pods that echo."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from kubewire.components.kubelet.streaming import server
from kubewire.components.kubelet.streaming.descriptors import read_chunks, write_all
from kubewire.components.kubelet.streaming.target import TargetError
from kubewire.components.kubelet.streaming.upgrade import protocol_factory

#: Seconds after which a connection whose client has ended hangs.
_LONGEST = 5.0


class EchoSession:
    """What comes on stdin goes out on stdout; it ends at the end of stdin, or when the session is closed."""

    def __init__(self) -> None:
        inner, self.stdin = _pipe()
        self.stdout, outer = _pipe()
        self.stderr = -1
        self._echo = asyncio.ensure_future(_echo(inner, outer))
        # Also when it is cancelled before it has begun.
        self._echo.add_done_callback(lambda _: _close(inner, outer))

    def close_stdin(self) -> None:
        os.close(self.stdin)
        self.stdin = -1

    async def wait(self) -> int:
        await asyncio.wait([self._echo])
        return 0

    async def resize(self, rows: int, columns: int) -> None:
        assert 0 < rows < 65536
        assert 0 < columns < 65536

    async def close(self) -> None:
        for descriptor in (self.stdin, self.stdout):
            if descriptor >= 0:
                os.close(descriptor)
        self._echo.cancel()
        await asyncio.wait([self._echo])


def _close(*ends: int) -> None:
    for end in ends:
        os.close(end)


def _pipe() -> tuple[int, int]:
    """The reading end first."""
    ends = os.pipe()
    for end in ends:
        os.set_blocking(end, False)
    return ends


async def _echo(inner: int, outer: int) -> None:
    try:
        async for chunk in read_chunks(inner):
            await write_all(outer, chunk)
    except BrokenPipeError:
        pass


class EchoTarget:
    """Every pod echoes, on port 80 too; port 81 is refused."""

    async def exec(self, namespace: str, pod: str, container: str, argv: Sequence[str], **_: bool) -> EchoSession:
        if argv[0] == "nonesuch":
            raise TargetError(500, "executable file not found")
        return EchoSession()

    async def attach(self, namespace: str, pod: str, container: str, **_: bool) -> EchoSession:
        return EchoSession()

    async def port_connect(
        self, namespace: str, pod: str, port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if port != 80:
            raise ConnectionRefusedError(111, "Connection refused")
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=theirs)

        async def echo() -> None:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.close()

        task = asyncio.ensure_future(_ignoring_resets(echo))
        _ECHOES.add(task)
        task.add_done_callback(_ECHOES.discard)
        return await asyncio.open_connection(sock=ours)


async def _ignoring_resets(work: Callable[[], Awaitable[None]]) -> None:
    try:
        await work()
    except ConnectionError:
        pass


_ECHOES: set[asyncio.Task[None]] = set()


@dataclass
class Complaints(logging.Handler):
    """What is logged with a traceback, and what asyncio finds lost."""

    found: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(logging.INFO)

    def __hash__(self) -> int:
        return id(self)

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info or record.levelno >= logging.ERROR:
            self.found.append(logging.Formatter().format(record))


def _descriptors() -> set[str]:
    return {one.name for one in Path("/proc/self/fd").iterdir()}


class Live:
    """talk(data): what a new connection answers to it before its client goes."""

    def __init__(self, factory: Callable[[], asyncio.Protocol]) -> None:
        self._factory = factory

    async def talk(self, *parts: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        before = _descriptors()
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=ours)
        transport, _ = await loop.connect_accepted_socket(self._factory, theirs)
        received = bytearray()

        async def read() -> None:
            try:
                while data := await reader.read(65536):
                    received.extend(data)
            except ConnectionError:
                pass

        reading = asyncio.ensure_future(read())
        try:
            async with asyncio.timeout(_LONGEST):
                for part in parts:
                    writer.write(part)
                    await _ignoring_resets(writer.drain)
                    await asyncio.sleep(0)
                await self._quiet(received)
                writer.transport.abort()
                await reading
                await self._settled(before)
        finally:
            reading.cancel()
            transport.abort()
        return bytes(received)

    async def _quiet(self, received: bytearray) -> None:
        """Nothing has come for some turns of the loop: the answer is there, as far as there is one."""
        turns = 0
        while turns < 10:
            before = len(received)
            await asyncio.sleep(0.0002)
            turns = turns + 1 if len(received) == before else 0

    async def _settled(self, before: set[str]) -> None:
        """Every task of the connection ends, and every descriptor is closed."""
        while len(asyncio.all_tasks()) > 1 or len(_descriptors() - before) > 0:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


@asynccontextmanager
async def live(target: EchoTarget) -> AsyncIterator[Live]:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        assert isinstance(request, web.Request)
        return await server.websocket(request, target)

    async def on_spdy(request: Any, reader: Any, writer: Any) -> None:
        await server.spdy(request, reader, writer, target)

    application = web.Application()
    application.router.add_get("/{path:.*}", handler)
    runner = web.AppRunner(application, shutdown_timeout=0.01, access_log=None, handle_signals=False)
    await runner.setup()
    assert runner.server is not None
    try:
        yield Live(protocol_factory(runner.server, on_spdy))
    finally:
        await runner.cleanup()
