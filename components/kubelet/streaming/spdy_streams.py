"""The streams of a SPDY connection, over an upgraded socket or over WebSocket messages."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

from kubewire.components.kubelet.streaming import spdy

#: The most received bytes of a stream that may wait for its reader. When they are exceeded, nothing
#: more is read from the connection, so that the peer has to wait. SPDY's flow control windows are
#: not used; upstream's spdystream blocks its frame workers in the same way.
_MOST_WAITING = 4 * 1024 * 1024
#: The most open streams of a connection; port-forward needs two per TCP connection.
_MOST_STREAMS = 4096
#: Frames after which other tasks get a turn: a message may hold a million empty frames.
_FRAMES_AT_ONCE = 256


class Carrier(Protocol):
    """Carries bytes. receive() returns b"" at the end; send() raises OSError without a peer."""

    async def receive(self) -> bytes: ...
    async def send(self, data: bytes) -> None: ...
    async def close(self) -> None: ...


class Stream:
    """A stream. The peer's data wait in a queue until receive() takes them."""

    def __init__(self, connection: SpdyStreams, number: int, headers: Mapping[str, str]) -> None:
        self.number = number
        self.headers = headers
        self._incoming: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._waiting = 0
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._connection = connection
        self._closed = False

    async def receive(self) -> bytes | None:
        """The next data; None at the end."""
        data = await self._incoming.get()
        self._waiting -= len(data or b"")
        if self._waiting <= _MOST_WAITING:
            self._has_room.set()
        return data

    async def feed(self, data: bytes) -> None:
        """Queues received data; returns when there is room for more."""
        self._incoming.put_nowait(data)
        self._waiting += len(data)
        if self._waiting > _MOST_WAITING:
            self._has_room.clear()
            await self._has_room.wait()

    def feed_end(self) -> None:
        self._incoming.put_nowait(None)

    def drop(self) -> None:
        """Lets feed() return at once from now on, because nothing reads the stream any more."""
        self._waiting = 0
        self._has_room.set()

    async def send(self, data: bytes) -> None:
        if not self._closed:
            await self._connection.write(self._connection.protocol.data(self.number, data))

    async def close(self) -> None:
        """Ends this side's half of the stream (FIN)."""
        if not self._closed:
            self._closed = True
            await self._connection.write(self._connection.protocol.data(self.number, b"", fin=True))

    async def reset(self) -> None:
        """Ends both halves of the stream at once."""
        self._closed = True
        await self._connection.write(self._connection.protocol.reset(self.number))


class SpdyStreams:
    """The server's side of a connection.

    The client opens streams, which arrive in `opened`; None there is the end of the connection.
    """

    def __init__(self, carrier: Carrier) -> None:
        self.protocol = spdy.Connection()
        self.opened: asyncio.Queue[Stream | None] = asyncio.Queue()
        self._carrier = carrier
        self._streams: dict[int, Stream] = {}
        self._sending = asyncio.Lock()

    async def write(self, frames: bytes) -> None:
        """Sends frames. Raises OSError if the client is gone."""
        async with self._sending:
            await self._carrier.send(frames)

    async def run(self) -> None:
        """Receives until the client is gone, and then ends every stream and `opened`."""
        try:
            while data := await self._carrier.receive():
                for number, event in enumerate(self.protocol.receive(data), start=1):
                    await self._handle(event)
                    if number % _FRAMES_AT_ONCE == 0:
                        await asyncio.sleep(0)
        except (OSError, spdy.SpdyError):
            pass
        finally:
            for stream in self._streams.values():
                stream.feed_end()
            self.opened.put_nowait(None)

    async def _handle(self, event: spdy.Event) -> None:
        match event:
            case spdy.StreamOpened(number) if self._refuses(number):
                await self.write(self.protocol.reset(number, spdy.REFUSED_STREAM))
            case spdy.StreamOpened(number, headers, fin):
                stream = Stream(self, number, headers)
                self._streams[number] = stream
                await self.write(self.protocol.reply(number))
                if fin:
                    stream.feed_end()
                self.opened.put_nowait(stream)
            case spdy.DataReceived(number, data, fin) if number in self._streams:
                stream = self._streams[number]
                if data:
                    await stream.feed(data)
                if fin:
                    stream.feed_end()
            case spdy.StreamReset(number) if number in self._streams:
                self._streams[number].feed_end()
            case spdy.Pinged(number):
                await self.write(self.protocol.ping(number))

    def _refuses(self, number: int) -> bool:
        return number in self._streams or len(self._streams) >= _MOST_STREAMS

    def forget(self, *streams: Stream) -> None:
        """Frees finished streams, which a long port-forward would collect otherwise."""
        for stream in streams:
            self._streams.pop(stream.number, None)
            stream.drop()

    async def close(self) -> None:
        await self._carrier.close()
