"""The channels of remotecommand over SPDY streams and over WebSocket messages."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from aiohttp import web

from kubewire.components.kubelet.streaming.numbered import Closed, NumberedMessages
from kubewire.components.kubelet.streaming.remotecommand import ChannelsClosed
from kubewire.components.kubelet.streaming.spdy_streams import SpdyStreams, Stream

#: The first byte of each WebSocket message; 255 (v5) closes the channel in the second byte.
NUMBERS = {"stdin": 0, "stdout": 1, "stderr": 2, "error": 3, "resize": 4}
NAMES = {number: name for name, number in NUMBERS.items()}
CLOSE = 255
_STREAMS_SECONDS = 30.0


def is_structured(protocol: str) -> bool:
    """Whether the final status is JSON (since v4). Before, it is the text of a failure."""
    return protocol.startswith(("v4.", "v5."))


class WebSocketChannels:
    """The protocols channel.k8s.io and base64.channel.k8s.io, their v4 forms, and v5."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket
        self._messages = NumberedMessages(socket)

    @property
    def structured(self) -> bool:
        return is_structured(self._messages.protocol)

    async def receive(self) -> tuple[str, bytes | None]:
        while True:
            try:
                number, data = await self._messages.receive()
            except Closed:
                raise ChannelsClosed from None
            if number == CLOSE and self._messages.protocol.startswith("v5."):
                if data and NAMES.get(data[0]) == "stdin":
                    return "stdin", None
                continue
            name = NAMES.get(number, "")
            if name in ("stdin", "resize") and data:
                return name, data

    async def send(self, channel: str, data: bytes) -> None:
        try:
            await self._messages.send(NUMBERS[channel], data)
        except Closed as error:
            raise ChannelsClosed from error

    async def finish(self) -> None:
        with suppress(ConnectionError, RuntimeError):
            await self._socket.close()


class SpdyChannels:
    """A SPDY stream per channel, whose header streamType is the channel's name."""

    def __init__(self, connection: SpdyStreams, protocol: str = "") -> None:
        self._connection = connection
        self.structured = is_structured(protocol)
        self._streams: dict[str, Stream] = {}
        # The queue is short, so that data that the process does not read waits in the streams,
        # whose size is limited in bytes.
        self._received: asyncio.Queue[tuple[str, bytes | None] | None] = asyncio.Queue(maxsize=4)
        self._tasks: list[asyncio.Task[None]] = []

    async def accept(self, names: set[str]) -> None:
        """Waits until the client has opened these streams. Raises ChannelsClosed if it does not."""
        try:
            async with asyncio.timeout(_STREAMS_SECONDS):
                while names - self._streams.keys():
                    stream = await self._connection.opened.get()
                    if stream is None:
                        raise ChannelsClosed
                    self._streams[stream.headers.get("streamtype", "")] = stream
        except TimeoutError:
            raise ChannelsClosed from None
        for name in ("stdin", "resize"):
            if name in self._streams:
                self._tasks.append(asyncio.ensure_future(self._pump(name)))
        self._tasks.append(asyncio.ensure_future(self._watch_end()))

    async def _pump(self, name: str) -> None:
        while (data := await self._streams[name].receive()) is not None:
            await self._received.put((name, data))
        await self._received.put((name, None))

    async def _watch_end(self) -> None:
        while await self._connection.opened.get() is not None:
            pass
        await self._received.put(None)

    async def receive(self) -> tuple[str, bytes | None]:
        item = await self._received.get()
        if item is None:
            raise ChannelsClosed
        return item

    async def send(self, channel: str, data: bytes) -> None:
        if channel not in self._streams:
            return
        try:
            await self._streams[channel].send(data)
        except OSError as error:
            raise ChannelsClosed from error

    async def finish(self) -> None:
        with suppress(OSError):
            for stream in self._streams.values():
                await stream.close()

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
