"""`/log` over WebSocket, for browsers, which cannot easily read a stream of bytes otherwise.

The messages are pieces of the log; what the client sends is ignored (apimachinery's
httpstream/wsstream Reader).
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import suppress

from aiohttp import WSMsgType, web

from kubewire.components.apiserver import status
from kubewire.components.base.connections import can_upgrade

BINARY = "binary.k8s.io"
BASE64 = "base64.binary.k8s.io"
_PROTOCOLS = (BINARY, BASE64)


def is_websocket(request: web.BaseRequest) -> bool:
    connection = request.headers.get("Connection", "").lower()
    return "upgrade" in connection and request.headers.get("Upgrade", "").lower() == "websocket"


async def send_as_messages(
    request: web.BaseRequest,
    chunks: AsyncIterator[bytes],
) -> web.StreamResponse:
    """Accepts the WebSocket and sends the chunks, until they or the client end.

    An empty message comes first, so that the client knows that the log is open. Raises
    StatusError for a handshake that cannot be accepted.
    """
    socket = web.WebSocketResponse(protocols=_PROTOCOLS)
    if not can_upgrade(socket, request):
        raise status.bad_request("the WebSocket handshake is not valid")
    lines = request.headers.getall("Sec-WebSocket-Protocol", ())
    offered = [name.strip() for line in lines for name in line.split(",")]
    if offered and not set(offered) & set(_PROTOCOLS):
        # x/net/websocket's answer to a handshake that its server refuses has no body.
        return web.Response(status=403)
    await socket.prepare(request)
    sending = asyncio.ensure_future(_send(socket, chunks))
    gone = asyncio.ensure_future(_until_gone(socket))
    try:
        await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        sending.cancel()
        with suppress(asyncio.CancelledError, ConnectionError):
            await sending
        await socket.close()
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
    return socket


async def _send(socket: web.WebSocketResponse, chunks: AsyncIterator[bytes]) -> None:
    if socket.ws_protocol == BASE64:
        await socket.send_str("")
        async for chunk in chunks:
            await socket.send_str(base64.b64encode(chunk).decode())
    else:
        await socket.send_bytes(b"")
        async for chunk in chunks:
            await socket.send_bytes(chunk)


async def _until_gone(socket: web.WebSocketResponse) -> None:
    ends = (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR)
    while (await socket.receive()).type not in ends:
        pass
