"""The kubelet's /exec, /attach and /portForward over SPDY/3.1 and WebSocket.

`kubectl exec` needs several byte streams in both directions (stdin, stdout, stderr, the exit
status, resizes of the terminal), but HTTP/1.1 has one request and one response. So the client asks
to upgrade the connection to a protocol that multiplexes streams. There are two. SPDY/3.1 is the
older one, and still the one of older clients. WebSocket carries each message with the number of
its channel. kubectl's port-forward tunnels the SPDY connection in such messages (KEP-4006); other
client libraries use two channels for each port. The API server passes the upgraded connection
through, so all of them arrive here.

The layers, from the bytes to the process:

    upgrade.py        takes SPDY connections away from aiohttp, which only knows WebSocket upgrades
    spdy.py           SPDY framing: bytes in, events out (no I/O)
    spdy_streams.py   streams with flow control over a socket or a WebSocket
    numbered.py       WebSocket messages that begin with the number of their channel
    channels.py       the channels stdin, stdout, stderr, error, resize, over either protocol
    remotecommand.py  copies between channels and a process; portforward.py between streams and TCP
    target.py         what a pod offers: exec, attach, port_connect (pod/container_target.py)

These rules hold here. A request is checked, and its command started, before the upgrade is
answered, because only then an error can still be an HTTP status; an error of the command itself
(status 500) is reported on the error channel instead, where kubectl expects it. Every session that
was opened is closed again on every path, since an exec'ed process without a client must end. What
a slow reader does not take is never collected without limit: the next read from the other side
waits instead.

Paths and query parameters are those of the kubelet (command, input, output, error, tty). The API's
names (stdin, stdout, stderr) are understood as well, so that clients can also connect directly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from aiohttp import web

from kubewire.components.base.connections import can_upgrade
from kubewire.components.kubelet.streaming import portforward, remotecommand
from kubewire.components.kubelet.streaming.channels import SpdyChannels, WebSocketChannels
from kubewire.components.kubelet.streaming.numbered import NumberedMessages
from kubewire.components.kubelet.streaming.remotecommand import Channels, ChannelsClosed
from kubewire.components.kubelet.streaming.spdy_streams import SpdyStreams
from kubewire.components.kubelet.streaming.target import ContainerTarget, ExecSession, TargetError
from kubewire.components.kubelet.streaming.upgrade import (
    SocketCarrier,
    UpgradeRequest,
    WebSocketCarrier,
)

#: The supported versions, best first; the client offers those that it supports.
REMOTECOMMAND_SPDY = ("v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io")
REMOTECOMMAND_WEBSOCKET = (
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
)
#: The largest WebSocket message, in bytes; clients send messages of some ten thousand bytes.
MAX_MESSAGE = 16 * 1024 * 1024
PORTFORWARD_SPDY = "portforward.k8s.io"
PORTFORWARD_TUNNEL = "SPDY/3.1+portforward.k8s.io"
PORTFORWARD_WEBSOCKET = ("v4.channel.k8s.io", "v4.base64.channel.k8s.io")


@dataclass(frozen=True)
class StreamRequest:
    """A request, independent of the protocol. container: "" for the default container."""

    verb: str
    namespace: str
    pod: str
    container: str
    command: tuple[str, ...]
    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool
    ports: tuple[int, ...] = ()

    def streams(self) -> set[str]:
        """The SPDY streams that the client will open."""
        wanted = {
            "error": True,
            "stdin": self.stdin,
            "stdout": self.stdout,
            "stderr": self.stderr and not self.tty,
            "resize": self.tty,
        }
        return {name for name, on in wanted.items() if on}


def parse(path: str, query: Mapping[str, Sequence[str]]) -> StreamRequest:
    """Parses /VERB/NAMESPACE/POD[/UID][/CONTAINER]. Raises TargetError with status 400 or 404."""
    verb, *rest = path.strip("/").split("/")
    if verb not in ("exec", "attach", "portForward") or len(rest) < 2:
        raise TargetError(404, "404 page not found")

    def flag(*names: str) -> bool:
        values = [value.lower() for name in names for value in query.get(name, ())]
        return any(value not in ("false", "0") for value in values)

    request = StreamRequest(
        verb,
        rest[0],
        rest[1],
        rest[-1] if len(rest) > 2 and verb != "portForward" else "",
        tuple(query.get("command", ())),
        stdin=flag("input", "stdin"),
        stdout=flag("output", "stdout"),
        stderr=flag("error", "stderr"),
        tty=flag("tty"),
        ports=tuple(_port(text) for value in query.get("port", ()) for text in value.split(",")),
    )
    if verb != "portForward" and not (request.stdin or request.stdout or request.stderr):
        raise TargetError(400, "you must specify at least 1 of stdin, stdout, stderr")
    if verb == "exec" and not request.command:
        raise TargetError(400, "you must specify at least one command for the container")
    return request


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65536):
        raise TargetError(400, f'unable to parse "{text}" as a port')
    return int(text)


async def _open(target: ContainerTarget, request: StreamRequest) -> ExecSession:
    run = partial(target.exec, argv=request.command)
    start = target.attach if request.verb == "attach" else run
    return await start(
        request.namespace,
        request.pod,
        request.container,
        stdin=request.stdin,
        stdout=request.stdout,
        stderr=request.stderr and not request.tty,
        tty=request.tty,
    )


async def _carry(
    opened: ExecSession | TargetError, channels: Channels, asked: StreamRequest
) -> None:
    if isinstance(opened, TargetError):
        await remotecommand.report_failure(channels, opened)
    else:
        await remotecommand.run(opened, channels, tty=asked.tty)


async def _opened(target: ContainerTarget, request: StreamRequest) -> ExecSession | TargetError:
    """Opens a session. Returns an error of status 500, which is reported on the error channel.

    Raises TargetError with a lower status, which becomes an HTTP response.
    """
    try:
        return await _open(target, request)
    except TargetError as error:
        if error.status < 500:
            raise
        return error


async def websocket(request: web.Request, target: ContainerTarget) -> web.StreamResponse:
    """Handles a GET with Upgrade: websocket, as an aiohttp handler."""
    try:
        asked = parse(request.path, {name: request.query.getall(name) for name in request.query})
        if asked.verb == "portForward":
            return await _portforward(request, target, asked)
        socket = web.WebSocketResponse(protocols=REMOTECOMMAND_WEBSOCKET, max_msg_size=MAX_MESSAGE)
        _check_handshake(socket, request, REMOTECOMMAND_WEBSOCKET)
        opened = await _opened(target, asked)
    except TargetError as error:
        return web.Response(status=error.status, text=error.message)
    try:
        await socket.prepare(request)
    except BaseException:
        if not isinstance(opened, TargetError):
            await opened.close()
        raise
    channels = WebSocketChannels(socket)
    with suppress(ChannelsClosed):
        # An empty message tells the client that the streams are connected.
        first = "stdout" if asked.stdout else "stderr" if asked.stderr else "error"
        await channels.send(first, b"")
    await _carry(opened, channels, asked)
    return socket


def _check_handshake(
    socket: web.WebSocketResponse, request: web.Request, protocols: Sequence[str]
) -> None:
    """Checks that the request can be upgraded, before anything starts. Raises TargetError 400, and
    as upstream's WebSocket library 403 for a client that offers only protocols that are not
    supported. One that offers none gets binary messages without a protocol."""
    if not can_upgrade(socket, request):
        raise TargetError(400, "unable to upgrade: missing upgrade headers in request")
    offered = _offered(request)
    if offered and not set(offered) & set(protocols):
        text = f"requested protocol(s) are not supported: {offered}; supports {list(protocols)}"
        raise TargetError(403, text)


def _offered(request: web.Request) -> list[str]:
    lines = request.headers.getall("Sec-WebSocket-Protocol", ())
    return [name.strip() for line in lines for name in line.split(",")]


async def _portforward(
    request: web.Request,
    target: ContainerTarget,
    asked: StreamRequest,
) -> web.StreamResponse:
    tunnelled = PORTFORWARD_TUNNEL in _offered(request)
    protocols = (PORTFORWARD_TUNNEL,) if tunnelled else PORTFORWARD_WEBSOCKET
    if not tunnelled and not asked.ports:
        raise TargetError(400, 'query parameter "port" is required')
    socket = web.WebSocketResponse(protocols=protocols, max_msg_size=MAX_MESSAGE)
    _check_handshake(socket, request, protocols)
    await socket.prepare(request)
    pod = portforward.Pod(asked.namespace, asked.pod)
    if tunnelled:
        await _forward(SpdyStreams(WebSocketCarrier(socket)), target, asked)
    else:
        await portforward.serve_numbered(NumberedMessages(socket), asked.ports, target, pod)
    with suppress(ConnectionError, RuntimeError):
        await socket.close()
    return socket


async def _forward(connection: SpdyStreams, target: ContainerTarget, asked: StreamRequest) -> None:
    running = asyncio.ensure_future(connection.run())
    try:
        await portforward.serve(connection, target, portforward.Pod(asked.namespace, asked.pod))
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await connection.close()


async def spdy(
    request: UpgradeRequest,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    target: ContainerTarget,
) -> None:
    """Handles a request with Upgrade: SPDY/3.1, as an upgrade.Handler."""
    try:
        asked = parse(request.path, request.query)
        version = _negotiate(asked, request)
        opened = await _opened(target, asked) if asked.verb != "portForward" else None
    except TargetError as error:
        _refuse(writer, error)
        return
    lines = ["HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: SPDY/3.1"]
    if version:
        lines.append(f"X-Stream-Protocol-Version: {version}")
    writer.write("\r\n".join([*lines, "", ""]).encode())
    connection = SpdyStreams(SocketCarrier(reader, writer))
    if opened is None:
        await _forward(connection, target, asked)
    else:
        await _remotecommand(connection, opened, asked, version)


async def _remotecommand(
    connection: SpdyStreams,
    opened: ExecSession | TargetError,
    asked: StreamRequest,
    version: str,
) -> None:
    running = asyncio.ensure_future(connection.run())
    channels = SpdyChannels(connection, version)
    try:
        await channels.accept(asked.streams())
        await _carry(opened, channels, asked)
    except ChannelsClosed:
        if not isinstance(opened, TargetError):
            await opened.close()
    finally:
        channels.close()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await connection.close()


def _negotiate(asked: StreamRequest, request: UpgradeRequest) -> str:
    """The protocol version for the answer; "" if the client offers none.

    As upstream, raises TargetError 403 if none of the offered versions is supported.
    """
    lines = request.headers.get("x-stream-protocol-version", [])
    offered = [version.strip() for line in lines for version in line.split(",")]
    supported = (PORTFORWARD_SPDY,) if asked.verb == "portForward" else REMOTECOMMAND_SPDY
    if not offered:
        return ""
    for version in supported:
        if version in offered:
            return version
    mismatch = f"client supports {offered}, server accepts {list(supported)}"
    raise TargetError(403, f"unable to negotiate protocol: {mismatch}")


def _refuse(writer: asyncio.StreamWriter, error: TargetError) -> None:
    """Answers in plain text; clients put "unable to upgrade connection: " in front of it."""
    body = error.message.encode()
    lines = (
        f"HTTP/1.1 {error.status} Error",
        "Content-Type: text/plain",
        f"Content-Length: {len(body)}",
        "Connection: close",
    )
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)
