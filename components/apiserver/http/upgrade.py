"""Carries an upgraded connection (SPDY/3.1 or WebSocket) between a client and a kubelet.

The upgrade request is sent on to the kubelet, and after its 101 the bytes pass unchanged in both
directions
(https://kubernetes.io/docs/concepts/architecture/control-plane-node-communication/#apiserver-to-kubelet).
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from aiohttp import web
from multidict import CIMultiDict

from kubewire.components.apiserver import status
from kubewire.components.apiserver.users import User
from kubewire.components.base.connections import HttpConnection, can_upgrade

DIAL_SECONDS = 10.0
BUFFER = 256 * 1024
_PROTOCOL = "Sec-WebSocket-Protocol"
_STREAM_CLOSE = "v5.channel.k8s.io"
_ERROR_CHANNEL = b"\x03"
#: Headers that concern one connection and not the message (RFC 9110, 7.6.1).
HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


class Connection(HttpConnection):
    """An aiohttp connection that can stop speaking HTTP.

    aiohttp upgrades only to WebSocket. A client of either upgrade sends nothing before the 101, so
    it is enough to take over the bytes from then on.
    """

    __slots__ = ("tunnel", "user")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.tunnel: asyncio.StreamReader | None = None
        self.user: User | None = None

    def data_received(self, data: bytes) -> None:
        if self.tunnel is not None:
            self.tunnel.feed_data(data)
        else:
            super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self.tunnel is not None:
            self.tunnel.feed_eof()
        super().connection_lost(exc)


class Hijacked(web.StreamResponse):
    """The response of a connection that was taken over; nothing is left to send."""

    async def prepare(self, request: web.BaseRequest) -> Any:
        self.force_close()
        return None

    async def write_eof(self, data: Any = b"") -> None:
        return None


@dataclass(frozen=True)
class Target:
    """Where a request is sent on to; path starts with a slash and has no query.

    kubelet: the API server shows its certificate there and verifies the other side's. Other
    servers get no certificate, and theirs are not verified, as nobody has told whose they are.
    """

    scheme: str
    host: str
    port: int
    path: str
    query: Sequence[tuple[str, str]] = ()
    kubelet: bool = False

    @property
    def path_and_query(self) -> str:
        return f"{self.path}?{urlencode(list(self.query))}" if self.query else self.path

    @property
    def authority(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def request_head(method: str, target: Target, headers: Mapping[str, str]) -> bytes:
    lines = [f"{method} {target.path_and_query} HTTP/1.1", f"Host: {target.authority}"]
    dropped = ("host", "authorization")
    kept = ((key, value) for key, value in headers.items() if key.lower() not in dropped)
    lines += [f"{key}: {value}" for key, value in kept]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class BackendError(ValueError):
    """The backend's answer is not HTTP, or is larger than what is passed on."""


#: The most bytes of a refusal's body; a process in a pod may send any number.
_MOST_REFUSAL = 3 * 1024 * 1024
_LENGTH = re.compile(r"[0-9]{1,18}")
_CHUNK_SIZE = re.compile(rb"([0-9a-fA-F]{1,16})[ \t]*(;.*)?\r?\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9][0-9])( .*)?\r\n")


async def read_answer(reader: asyncio.StreamReader) -> tuple[bytes, web.Response | None]:
    """Returns the head of the backend's answer and, if it is not a 101, the refusal with its body.

    Raises BackendError, IncompleteReadError and TimeoutError.
    """
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError as error:
        raise BackendError("the head of the answer is too long") from error
    match = _STATUS_LINE.match(head)
    if match is None:
        raise BackendError(f"malformed HTTP response {head[:80].decode('latin-1')!r}")
    code = int(match[1])
    if code < 200 and code != 101:
        raise BackendError(f"unexpected status code {code}")
    return head, None if code == 101 else await _refusal(code, head, reader)


async def _refusal(code: int, head: bytes, reader: asyncio.StreamReader) -> web.Response:
    headers: CIMultiDict[str] = CIMultiDict()
    for line in head.decode("latin-1").rstrip().split("\r\n")[1:]:
        key, _, value = line.partition(":")
        # aiohttp would refuse to send other lines on.
        if key.strip() and not set(line) & {"\r", "\n", "\0"}:
            headers.add(key.strip(), value.strip())
    async with asyncio.timeout(DIAL_SECONDS):
        body = await _body(headers, reader)
    dropped = HOP_BY_HOP | {"content-length"}
    kept = {key: value for key, value in headers.items() if key.lower() not in dropped}
    return web.Response(status=code, body=body, headers=kept)


async def _body(headers: Mapping[str, str], reader: asyncio.StreamReader) -> bytes:
    if headers.get("Transfer-Encoding") is not None:
        return await _dechunked(reader)
    length = headers.get("Content-Length")
    if length is None:
        return await reader.read(BUFFER)
    if not _LENGTH.fullmatch(length) or int(length) > _MOST_REFUSAL:
        raise BackendError(
            f"bad Content-Length {length[:40]!r}: {_MOST_REFUSAL} bytes are passed on at most",
        )
    return await reader.readexactly(int(length))


async def _dechunked(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while True:
        try:
            line = await reader.readline()
        except ValueError as error:
            raise BackendError("the line of a chunk is too long") from error
        match = _CHUNK_SIZE.fullmatch(line)
        if match is None:
            raise BackendError(f"malformed chunk {line[:40]!r}")
        size = int(match[1], 16)
        if not size:
            return body
        if len(body) + size > _MOST_REFUSAL:
            raise BackendError(f"a body of more than {_MOST_REFUSAL} bytes")
        body += await reader.readexactly(size)
        await reader.readexactly(2)


async def tunnel(
    request: web.BaseRequest,
    head: bytes,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """Copies bytes in both directions until one side ends."""
    connection = request.protocol
    transport = request.transport
    if not isinstance(connection, Connection) or transport is None:
        raise status.internal_error("the connection cannot be taken over")
    inward = asyncio.StreamReader(limit=BUFFER)
    inward.set_transport(transport)
    connection.tunnel = inward
    transport.write(head)

    async def to_client() -> None:
        while data := await reader.read(BUFFER):
            transport.write(data)
            await connection._drain_helper()

    async def to_kubelet() -> None:
        while data := await inward.read(BUFFER):
            writer.write(data)
            await writer.drain()

    pumps = [asyncio.create_task(to_client()), asyncio.create_task(to_kubelet())]
    try:
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        transport.close()


def wants_stream_close(request: web.BaseRequest) -> bool:
    """Whether this is a WebSocket client of remotecommand v5.

    Upstream's API server translates for such clients itself (StreamTranslator).
    """
    lines = request.headers.getall(_PROTOCOL, ())
    offered = [name.strip() for line in lines for name in line.split(",")]
    return request.headers.get("Upgrade", "").lower() == "websocket" and _STREAM_CLOSE in offered


async def say_on_error_channel(
    request: web.BaseRequest,
    refused: web.Response,
) -> web.StreamResponse:
    """Accepts the WebSocket and sends the refusal as a Status on its error channel.

    Upstream has accepted the WebSocket before it asks the kubelet, so clients expect a refusal
    there.
    """
    socket = web.WebSocketResponse(protocols=(_STREAM_CLOSE,))
    if not can_upgrade(socket, request):
        return refused
    await socket.prepare(request)
    body = refused.body if isinstance(refused.body, bytes) else b""
    text = body.decode(errors="replace").strip()
    said = status.internal_error(f"unable to upgrade connection: {text}").body
    await socket.send_bytes(_ERROR_CHANNEL + json.dumps(said).encode())
    await socket.close()
    return socket
