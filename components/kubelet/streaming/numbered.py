"""WebSocket messages of numbered channels (channel.k8s.io and base64.channel.k8s.io).

Each message begins with the number of its channel: a byte before binary data, or a digit before
base64 (apimachinery/pkg/util/httpstream/wsstream).
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from aiohttp import WSMsgType, web

_ZERO = ord("0")


class Closed(Exception):
    """The client is gone."""


def encode(channel: int, data: bytes, *, text: bool) -> bytes | str:
    """The message that carries data; text: of a base64 protocol."""
    if text:
        return chr(_ZERO + channel) + base64.b64encode(data).decode()
    return bytes([channel]) + data


def decode(message: bytes, *, text: bool) -> tuple[int, bytes] | None:
    """The channel and the data of a message; None for one that is ignored, as upstream does."""
    if not message:
        return None
    if not text:
        return message[0], message[1:]
    try:
        return message[0] - _ZERO, base64.b64decode(message[1:], validate=True)
    except binascii.Error:
        return None


@dataclass(frozen=True)
class NumberedMessages:
    """The messages of an upgraded connection whose protocol was negotiated."""

    socket: web.WebSocketResponse

    @property
    def protocol(self) -> str:
        """The negotiated protocol; "" is that of clients that name none."""
        return self.socket.ws_protocol or ""

    @property
    def _text(self) -> bool:
        return "base64." in self.protocol

    async def receive(self) -> tuple[int, bytes]:
        """Raises Closed."""
        while True:
            message = await self.socket.receive()
            if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
                raise Closed
            data = message.data.encode() if isinstance(message.data, str) else message.data
            decoded = decode(data, text=self._text)
            if decoded is not None:
                return decoded

    async def send(self, channel: int, data: bytes) -> None:
        """Raises Closed."""
        message = encode(channel, data, text=self._text)
        try:
            if isinstance(message, str):
                await self.socket.send_str(message)
            else:
                await self.socket.send_bytes(message)
        except (ConnectionError, RuntimeError) as error:
            raise Closed from error
