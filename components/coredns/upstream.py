"""One server that questions are forwarded to: its UDP socket, TCP connections and health."""

from __future__ import annotations

import asyncio
import random
import struct
import time
from typing import cast

from kubewire.components.coredns.message import NS, Request, encode_query, question_for

_READ_SECONDS, _PROBE_SECONDS = 2.0, 1.0
#: What we can take by UDP when the client did not say (no EDNS0 then): plain DNS.
_HEADER = struct.Struct("!H")


class Upstream:
    """fails counts failed probes in a row."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.label = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.fails = 0
        self.suspicious = asyncio.Event()
        self._socket: _Udp | None = None

    def probe_soon(self) -> None:
        self.suspicious.set()

    async def probe(self, recursion_desired: bool) -> bool:
        """Any answer to `. NS` will do."""
        try:
            await self.exchange(question_for(".", NS), tcp=False, deadline=time.monotonic() + _PROBE_SECONDS)
        except OSError:
            self.fails += 1
            return False
        self.fails = 0
        return True

    async def exchange(self, request: Request, *, tcp: bool, deadline: float) -> bytes:
        """The answer as it came, of the same question. Raises OSError (TimeoutError too)."""
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
            # A new socket has a new source port: translations of the old flow may lead to nobody.
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
    """A connected socket with many questions under way, told apart by random ids."""

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
        # The event loop's own class is no subclass of DatagramTransport in Python 3.11.
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
        # Who guesses the id must know the question as well.
        if future is not None and not future.done() and data[12 : 12 + len(question)].lower() == question:
            future.set_result(data)

    def error_received(self, error: Exception) -> None:
        """ICMP: the port is closed. Whoever waits need not wait longer."""
        for _, future in self._waiting.values():
            if not future.done():
                future.set_exception(ConnectionRefusedError(str(error)))

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True

    def retire(self) -> None:
        """No new questions; closes when the last one is answered."""
        self.closed = True
        self._close_when_idle()

    def _close_when_idle(self) -> None:
        if self.closed and not self._waiting and self._transport is not None:
            self._transport.close()
