"""The sockets: DNS messages in UDP datagrams and TCP streams. Parsing and answering are elsewhere.

DNS over UDP has one message per datagram. Over TCP each message follows its length in two octets,
and a client may send several queries before it reads an answer; answers go out as soon as they are
ready, in any order, because the client matches them by id (RFC 7766, 6.2.1.1 and 7). So every query
gets its own task on both transports, and a slow upstream delays no other client.

Any client that reaches the port may send anything, so all that it can make the server hold is
bounded: queries being answered, TCP connections, queries of one connection, and the time a
connection may stay idle or leave its answers unread. When a bound is reached, UDP queries are
dropped, which the client's retry repairs, and further queries of a TCP connection wait in the
kernel's receive buffer; a connection too many, or one that is idle for too long, is closed.

One socket per protocol serves both families: an AF_INET6 socket without IPV6_V6ONLY also receives
IPv4, with the client's address as ::ffff:a.b.c.d (ipv6(7), RFC 3493 5.3).
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Callable
from typing import cast

from dnslib import DNSError
from dnslib.label import DNSLabelError

from kubewire.components.base import serving
from kubewire.components.coredns.message import (
    BADVERS,
    IN,
    REFUSED,
    SERVFAIL,
    Ignored,
    Rejected,
    Request,
    Response,
    decode,
    encode,
)
from kubewire.components.coredns.plugin import Next

log = logging.getLogger("coredns")
_LENGTH = struct.Struct("!H")
_IDLE_SECONDS = 10.0
#: UDP queries being answered at once; further ones are dropped.
_MAX_ACTIVE = 10000
#: Queries of one TCP connection being answered at once; further ones wait in the kernel.
_MAX_PIPELINED = 128
#: TCP connections at once.
_MAX_CONNECTIONS = 1024


async def answer(data: bytes, serve: Next, transport: str, peer: str) -> bytes | None:
    """The reply to one message, or None for a message that gets no reply."""
    try:
        request = decode(data, transport, peer)
    except Ignored:
        return None
    except Rejected as rejected:
        return rejected.reply
    response = await respond(request, serve)
    try:
        return encode(request, response)
    except (DNSError, DNSLabelError, ValueError, struct.error) as error:
        # A plugin made a record that cannot be encoded. CoreDNS answers SERVFAIL when miekg/dns's
        # Pack fails.
        log.warning(
            "%s: cannot encode the answer for %s %s: %s",
            peer,
            request.name,
            request.type_name,
            error,
        )
        return encode(request, Response(SERVFAIL))


async def respond(request: Request, serve: Next) -> Response:
    """Asks serve, except for an EDNS version or a class that the server does not support."""
    if request.edns_version:
        return Response(BADVERS)
    if request.qclass != IN:
        return Response(REFUSED)
    try:
        return await serve(request)
    except asyncio.CancelledError:
        raise
    except Exception as error:  # a plugin's error is answered with SERVFAIL (RFC 1035, 4.1.1)
        if not isinstance(error, OSError):
            log.debug("%s %s", request.name, request.type_name, exc_info=True)
        return Response(SERVFAIL)


def _peer(host: str, port: int) -> str:
    """HOST:PORT of a client, where an IPv4-mapped IPv6 address becomes the IPv4 address."""
    host = host.removeprefix("::ffff:")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class UdpServer(asyncio.DatagramProtocol):
    """Answers each datagram in a task of its own."""

    def __init__(self, serve: Next) -> None:
        self._serve = serve
        self._transport: asyncio.DatagramTransport | None = None
        self._active: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # In Python 3.11 the event loop's class does not derive from DatagramTransport.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if len(self._active) >= _MAX_ACTIVE:
            return
        task = asyncio.get_running_loop().create_task(self._reply(data, addr))
        self._active.add(task)
        task.add_done_callback(self._active.discard)

    async def _reply(self, data: bytes, addr: tuple[str, int]) -> None:
        peer = _peer(addr[0], addr[1])
        with serving.failing_alone(log, peer):
            reply = await answer(data, self._serve, "udp", peer)
            transport = self._transport
            if reply is not None and transport is not None and not transport.is_closing():
                transport.sendto(reply, addr)


async def _drained(writer: asyncio.StreamWriter) -> None:
    """Waits until the client has read enough; resets a connection whose client does not read."""
    try:
        async with asyncio.timeout(_IDLE_SECONDS):
            await writer.drain()
    except TimeoutError:
        writer.transport.abort()
        raise


async def serve_stream(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    serve: Next,
) -> None:
    """Answers the queries of one TCP connection, each as soon as its answer is ready (RFC 7766)."""
    host, port, *_ = writer.get_extra_info("peername") or ("", 0)
    tasks: set[asyncio.Task[None]] = set()

    peer = _peer(host, port)
    free = asyncio.Semaphore(_MAX_PIPELINED)

    async def reply_to(data: bytes) -> None:
        try:
            with serving.failing_alone(log, peer):
                reply = await answer(data, serve, "tcp", peer)
                if reply is not None and not writer.is_closing():
                    writer.write(_LENGTH.pack(len(reply)) + reply)
                    await _drained(writer)
        finally:
            free.release()

    try:
        while True:
            await free.acquire()
            async with asyncio.timeout(_IDLE_SECONDS):
                (size,) = _LENGTH.unpack(await reader.readexactly(2))
            async with asyncio.timeout(_IDLE_SECONDS):
                data = await reader.readexactly(size)
            task = asyncio.get_running_loop().create_task(reply_to(data))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
    finally:
        await asyncio.gather(*tasks, return_exceptions=True)
        writer.close()


class Listener:
    """Listens for UDP and TCP on one port, on all addresses of both families."""

    def __init__(self, port: int, serve: Next) -> None:
        self._port = port
        self._serve = serve
        self._close: list[Callable[[], None]] = []

    async def start(self) -> None:
        """Opens both sockets. Raises OSError that names protocol and port.

        SO_REUSEPORT lets the next configuration listen before this one stops.
        """
        loop = asyncio.get_running_loop()
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            sock = _bound(self._port, kind)
            if kind == socket.SOCK_DGRAM:
                transport, _ = await loop.create_datagram_endpoint(
                    lambda: UdpServer(self._serve),
                    sock=sock,
                )
                self._close.append(transport.close)
            else:
                handler = serving.connections(
                    lambda reader, writer: serve_stream(reader, writer, self._serve),
                    log,
                    most=_MAX_CONNECTIONS,
                )
                server = await asyncio.start_server(handler, sock=sock)
                self._close.append(server.close)

    def stop(self) -> None:
        for close in self._close:
            close()
        self._close.clear()


def _bound(port: int, kind: socket.SocketKind) -> socket.socket:
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    sock = socket.socket(family, kind)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("", port))
        sock.setblocking(False)
        if kind == socket.SOCK_STREAM:
            sock.listen(128)
    except OSError as error:
        sock.close()
        kind_name = "udp" if kind == socket.SOCK_DGRAM else "tcp"
        raise OSError(error.errno, f"listen {kind_name} :{port}: bind: {error.strerror}") from error
    return sock
