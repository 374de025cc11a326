"""The kubelet's /exec, /attach and /portForward over SPDY/3.1 and WebSocket, for a ContainerTarget.

Paths and query parameters are the kubelet's (command, input, output, error, tty); the API's names for them
(stdin, stdout, stderr) are understood too, so that a client may come without an API server in between.
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
from kubewire.components.kubelet.streaming.remotecommand import Channels, ChannelsClosed
from kubewire.components.kubelet.streaming.spdy_streams import SpdyStreams
from kubewire.components.kubelet.streaming.target import ContainerTarget, ExecSession, TargetError
from kubewire.components.kubelet.streaming.upgrade import SocketCarrier, UpgradeRequest, WebSocketCarrier

#: Best first; a client offers what it speaks.
REMOTECOMMAND_SPDY = ("v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io")
REMOTECOMMAND_WEBSOCKET = ("v5.channel.k8s.io", "v4.channel.k8s.io")
#: Bytes of one WebSocket message; clients send some ten thousand.
MAX_MESSAGE = 16 * 1024 * 1024
PORTFORWARD_SPDY = "portforward.k8s.io"
PORTFORWARD_TUNNEL = "SPDY/3.1+portforward.k8s.io"


@dataclass(frozen=True)
class StreamRequest:
    """What is asked of which container, whichever protocol carries it."""

    verb: str
    namespace: str
    pod: str
    container: str
    command: tuple[str, ...]
    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool

    def streams(self) -> set[str]:
        """The SPDY streams that the client will open."""
        wanted = {"stdin": self.stdin, "stdout": self.stdout, "stderr": self.stderr and not self.tty}
        return {"error", *(name for name, on in wanted.items() if on)} | ({"resize"} if self.tty else set())


def parse(path: str, query: Mapping[str, Sequence[str]]) -> StreamRequest:
    """/VERB/NAMESPACE/POD[/UID][/CONTAINER]. Raises TargetError 400 or 404."""
    verb, *rest = path.strip("/").split("/")
    if verb not in ("exec", "attach", "portForward") or len(rest) < 2:
        raise TargetError(404, "404 page not found")

    def flag(*names: str) -> bool:
        return any(value.lower() not in ("false", "0") for name in names for value in query.get(name, ()))

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
    )
    if verb != "portForward" and not (request.stdin or request.stdout or request.stderr):
        raise TargetError(400, "you must specify at least 1 of stdin, stdout, stderr")
    if verb == "exec" and not request.command:
        raise TargetError(400, "you must specify at least one command for the container")
    return request


async def _open(target: ContainerTarget, request: StreamRequest) -> ExecSession:
    start = target.attach if request.verb == "attach" else partial(target.exec, argv=request.command)
    return await start(
        request.namespace,
        request.pod,
        request.container,
        stdin=request.stdin,
        stdout=request.stdout,
        stderr=request.stderr and not request.tty,
        tty=request.tty,
    )


async def _carry(opened: ExecSession | TargetError, channels: Channels) -> None:
    if isinstance(opened, TargetError):
        await remotecommand.report_failure(channels, opened)
    else:
        await remotecommand.run(opened, channels)


async def _opened(target: ContainerTarget, request: StreamRequest) -> ExecSession | TargetError:
    """A session, or why it could not be started (to be said on the error channel). Raises TargetError below 500:
    that is still an HTTP answer."""
    try:
        return await _open(target, request)
    except TargetError as error:
        if error.status < 500:
            raise
        return error


async def websocket(request: web.Request, target: ContainerTarget) -> web.StreamResponse:
    """aiohttp handler for GET with Upgrade: websocket."""
    try:
        asked = parse(request.path, {name: request.query.getall(name) for name in request.query})
        if asked.verb == "portForward":
            return await _tunnel(request, target, asked)
        socket = web.WebSocketResponse(protocols=REMOTECOMMAND_WEBSOCKET, max_msg_size=MAX_MESSAGE)
        _check_handshake(socket, request)
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
        await channels.send("stdout" if asked.stdout else "stderr" if asked.stderr else "error", b"")
    await _carry(opened, channels)
    return socket


def _check_handshake(socket: web.WebSocketResponse, request: web.Request) -> None:
    """Before anything is started for it. Raises TargetError 400."""
    if not can_upgrade(socket, request):
        raise TargetError(400, "unable to upgrade: missing upgrade headers in request")


async def _tunnel(request: web.Request, target: ContainerTarget, asked: StreamRequest) -> web.StreamResponse:
    socket = web.WebSocketResponse(protocols=(PORTFORWARD_TUNNEL,), max_msg_size=MAX_MESSAGE)
    _check_handshake(socket, request)
    await socket.prepare(request)
    await _forward(SpdyStreams(WebSocketCarrier(socket)), target, asked)
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
    request: UpgradeRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: ContainerTarget
) -> None:
    """upgrade.Handler for requests with Upgrade: SPDY/3.1."""
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
        await _remotecommand(connection, opened, asked)


async def _remotecommand(connection: SpdyStreams, opened: ExecSession | TargetError, asked: StreamRequest) -> None:
    running = asyncio.ensure_future(connection.run())
    channels = SpdyChannels(connection)
    try:
        await channels.accept(asked.streams())
        await _carry(opened, channels)
    except ChannelsClosed:
        if not isinstance(opened, TargetError):
            await opened.close()
    finally:
        channels.close()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await connection.close()


def _negotiate(asked: StreamRequest, request: UpgradeRequest) -> str:
    """The protocol version to answer with; a client that offers none gets none. Raises TargetError 403 as upstream."""
    lines = request.headers.get("x-stream-protocol-version", [])
    offered = [version.strip() for line in lines for version in line.split(",")]
    spoken = (PORTFORWARD_SPDY,) if asked.verb == "portForward" else REMOTECOMMAND_SPDY
    if not offered:
        return ""
    for version in spoken:
        if version in offered:
            return version
    raise TargetError(403, f"unable to negotiate protocol: client supports {offered}, server accepts {list(spoken)}")


def _refuse(writer: asyncio.StreamWriter, error: TargetError) -> None:
    """Plain text, as the kubelet's: clients put "unable to upgrade connection: " in front."""
    body = error.message.encode()
    head = f"HTTP/1.1 {error.status} Error\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
    writer.write(head.encode() + b"Connection: close\r\n\r\n" + body)
