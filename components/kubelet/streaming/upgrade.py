"""HTTP/1.1 upgrades to SPDY/3.1, on the port that aiohttp serves.

aiohttp's parser supports no upgrade but WebSocket's. So SpdyAwareHandler looks at the head of each
request first, and takes the connection away from aiohttp if it asks for SPDY.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from aiohttp import WSMsgType, web

from kubewire.components.base.connections import HttpConnection
from kubewire.components.base.serving import peer_of

log = logging.getLogger(__name__)

_MAX_HEAD = 64 * 1024
_REQUEST_LINE = re.compile(rb"(POST|GET) /\S* HTTP/1\.1\r\n")


@dataclass(frozen=True)
class UpgradeRequest:
    """The head of a request for an upgrade. headers: lower-case name -> all values."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, list[str]]


def parse_head(head: bytes) -> UpgradeRequest:
    """Parses the head of a request. Raises ValueError if it is malformed."""
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    parts = urlsplit(target)
    headers: dict[str, list[str]] = {}
    for line in filter(None, lines):
        name, separator, value = line.partition(":")
        if not separator:
            raise ValueError(f"malformed header line {line!r}")
        headers.setdefault(name.strip().lower(), []).append(value.strip())
    query = parse_qs(parts.query, keep_blank_values=True)
    return UpgradeRequest(method, parts.path, query, headers)


def wants_spdy(head: bytes) -> bool:
    lines = head.lower().split(b"\r\n")
    return any(line.startswith(b"upgrade:") and b"spdy/3.1" in line for line in lines)


#: Handles a request; gets the connection as streams that begin right after the request's head.
Handler = Callable[[UpgradeRequest, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class SpdyAwareHandler(HttpConnection):
    """aiohttp's connection handler, which gives the connection away if a request asks for SPDY."""

    __slots__ = ("_head", "_on_spdy")

    def __init__(self, server: web.Server, *, on_spdy: Handler, **options: Any) -> None:
        super().__init__(server, **options)
        self._on_spdy = on_spdy
        self._head = b""

    def data_received(self, data: bytes) -> None:
        if not self._head and not _REQUEST_LINE.match(data):
            super().data_received(data)
            return
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if not end and len(self._head) < _MAX_HEAD:
            return
        received = self._head
        self._head = b""
        if end and wants_spdy(head):
            self._divert(head, rest)
        else:
            super().data_received(received)

    def _divert(self, head: bytes, rest: bytes) -> None:
        transport = self.transport
        assert isinstance(transport, asyncio.Transport)
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        self.transport = None  # otherwise connection_lost() would close it
        super().connection_lost(None)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if rest:
            reader.feed_data(rest)
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        task = loop.create_task(self._serve(head, reader, writer))
        _RUNNING.add(task)
        task.add_done_callback(_RUNNING.discard)

    async def _serve(
        self,
        head: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        try:
            await self._on_spdy(parse_head(head), reader, writer)
        except (OSError, ValueError, EOFError) as error:
            log.info("%s: the stream ended: %s", peer_of(writer), error)
        except Exception:
            log.exception("%s: the stream failed", peer_of(writer))
        finally:
            writer.close()


#: asyncio keeps only weak references to tasks.
_RUNNING: set[asyncio.Task[None]] = set()


def protocol_factory(server: web.Server, on_spdy: Handler) -> Callable[[], SpdyAwareHandler]:
    """The factory for loop.create_server(), instead of the aiohttp server itself."""
    loop = asyncio.get_running_loop()
    return lambda: SpdyAwareHandler(server, on_spdy=on_spdy, loop=loop)


class SocketCarrier:
    """A spdy_streams.Carrier over an upgraded connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def receive(self) -> bytes:
        return await self._reader.read(64 * 1024)

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def close(self) -> None:
        self._writer.close()


class WebSocketCarrier:
    """A spdy_streams.Carrier over WebSocket messages, as kubectl port-forward uses since 1.31."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def receive(self) -> bytes:
        while True:
            message = await self._socket.receive()
            if message.type != WSMsgType.BINARY:
                return b""
            if message.data:
                data: bytes = message.data
                return data

    async def send(self, data: bytes) -> None:
        try:
            await self._socket.send_bytes(data)
        except RuntimeError as error:
            raise ConnectionResetError(str(error)) from error

    async def close(self) -> None:
        await self._socket.close()
