"""A server that queries are forwarded to: its UDP socket, TCP connections and health.

All queries to an upstream share one connected UDP socket. Connecting it makes the kernel drop
datagrams from other addresses and report ICMP errors (udp(7)), so that a closed port fails at once.
After a failure the next query opens a new socket, with a new source port: the old flow's conntrack
entry may still translate to an endpoint that no longer exists.
"""

from __future__ import annotations

import asyncio
import random
import struct
import time
from typing import cast

from kubewire.components.coredns.message import NS, Request, encode_query, question_for

_READ_SECONDS = 2.0
_PROBE_SECONDS = 1.0
#: The length in front of a message over TCP, and the id at the start of a message.
_HEADER = struct.Struct("!H")


class Upstream:
    """fails: the number of failed probes since the last successful one."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self.label = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.fails = 0
        self.suspicious = asyncio.Event()
        self._socket: _Udp | None = None

    def probe_soon(self) -> None:
        self.suspicious.set()

    async def probe(self, recursion_desired: bool) -> bool:
        """Asks for `. NS` and returns whether any answer came, whatever its rcode."""
        try:
            await self.exchange(
                question_for(".", NS),
                tcp=False,
                deadline=time.monotonic() + _PROBE_SECONDS,
            )
        except OSError:
            self.fails += 1
            return False
        self.fails = 0
        return True

    async def exchange(self, request: Request, *, tcp: bool, deadline: float) -> bytes:
        """Returns the upstream's answer as bytes. Raises OSError, of which TimeoutError is one."""
        seconds = min(_READ_SECONDS, deadline - time.monotonic())
        if tcp:
            async with asyncio.timeout(seconds):
                return await self._tcp(request)
        if self._socket is None or self._socket.closed:
            self._socket = await _Udp.open(self.host, self.port)
        udp = self._socket
        try:
            return await udp.exchange(request, seconds)
        except OSError:
            # See the module's docstring: a new source port avoids a stale conntrack entry.
            if self._socket is udp:
                self._socket = None
            udp.retire()
            raise

    async def _tcp(self, request: Request) -> bytes:
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            query = encode_query(request, random.getrandbits(16))
            writer.write(_HEADER.pack(len(query)) + query)
            (size,) = _HEADER.unpack(await reader.readexactly(2))
            return await reader.readexactly(size)
        except asyncio.IncompleteReadError as error:
            raise ConnectionError(f"{self.label} closed the connection") from error
        finally:
            writer.close()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.retire()


class _Udp(asyncio.DatagramProtocol):
    """A connected socket with many queries in flight, which random ids tell apart."""

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[bytes, asyncio.Future[bytes]]] = {}
        self._transport: asyncio.DatagramTransport | None = None
        self.closed = False

    @classmethod
    async def open(cls, host: str, port: int) -> _Udp:
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_datagram_endpoint(cls, remote_addr=(host, port))
        return protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # In Python 3.11 the event loop's class does not derive from DatagramTransport.
        self._transport = cast(asyncio.DatagramTransport, transport)

    async def exchange(self, request: Request, seconds: float) -> bytes:
        ident = random.getrandbits(16)
        while ident in self._waiting:
            ident = random.getrandbits(16)
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[ident] = (request.question.lower(), future)
        try:
            if self._transport is None or self.closed:
                raise ConnectionError("socket closed")
            self._transport.sendto(encode_query(request, ident))
            async with asyncio.timeout(seconds):
                return await future
        finally:
            self._waiting.pop(ident, None)
            self._close_when_idle()

    def datagram_received(self, data: bytes, addr: object) -> None:
        if len(data) < 12:
            return
        (ident,) = _HEADER.unpack_from(data)
        question, future = self._waiting.get(ident, (b"", None))
        if future is None or future.done():
            return
        # A forged answer must also repeat the question, not only guess the id (RFC 5452, 9.1).
        if data[12 : 12 + len(question)].lower() == question:
            future.set_result(data)

    def error_received(self, error: Exception) -> None:
        """ICMP says that the port is closed, so all queries in flight fail at once."""
        for _, future in self._waiting.values():
            if not future.done():
                future.set_exception(ConnectionRefusedError(str(error)))

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True

    def retire(self) -> None:
        """Takes no new queries, and closes the socket when the last one has ended."""
        self.closed = True
        self._close_when_idle()

    def _close_when_idle(self) -> None:
        if self.closed and not self._waiting and self._transport is not None:
            self._transport.close()
