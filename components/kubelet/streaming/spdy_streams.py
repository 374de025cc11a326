"""Streams of a SPDY connection over anything that carries bytes: an upgraded socket, or WebSocket messages."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

from kubewire.components.kubelet.streaming import spdy

#: Bytes of a stream that wait for whom they are for. Then nothing more is read of the connection, whose peer waits as
#: well: SPDY's own windows are not used (spdystream blocks its frame workers, too).
_MOST_WAITING = 4 * 1024 * 1024
#: Streams of one connection that are open; a port-forward has two for each connection into the pod.
_MOST_STREAMS = 4096
#: Frames after which others have their turn: a message may hold a million empty ones.
_FRAMES_AT_ONCE = 256


class Carrier(Protocol):
    """A connection's bytes. receive returns b"" at the end; send raises OSError when the peer is gone."""

    async def receive(self) -> bytes: ...
    async def send(self, data: bytes) -> None: ...
    async def close(self) -> None: ...


class Stream:
    """One stream: what the peer sends arrives in a queue, None is its end."""

    def __init__(self, connection: SpdyStreams, number: int, headers: Mapping[str, str]) -> None:
        self.number, self.headers = number, headers
        self._incoming: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._waiting = 0
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._connection = connection
        self._closed = False

    async def receive(self) -> bytes | None:
        """The next data; None when the peer sends no more."""
        data = await self._incoming.get()
        self._waiting -= len(data or b"")
        if self._waiting <= _MOST_WAITING:
            self._has_room.set()
        return data

    async def feed(self, data: bytes) -> None:
        """Returns when there is room for more."""
        self._incoming.put_nowait(data)
        self._waiting += len(data)
        if self._waiting > _MOST_WAITING:
            self._has_room.clear()
            await self._has_room.wait()

    def feed_end(self) -> None:
        self._incoming.put_nowait(None)

    def drop(self) -> None:
        """Nobody receives any more."""
        self._waiting = 0
        self._has_room.set()

    async def send(self, data: bytes) -> None:
        if not self._closed:
            await self._connection.write(self._connection.protocol.data(self.number, data))

    async def close(self) -> None:
        """Our half ends (FIN)."""
        if not self._closed:
            self._closed = True
            await self._connection.write(self._connection.protocol.data(self.number, b"", fin=True))

    async def reset(self) -> None:
        """Both halves end at once."""
        self._closed = True
        await self._connection.write(self._connection.protocol.reset(self.number))


class SpdyStreams:
    """The server's side: the client opens streams, `opened` yields them, run() feeds them."""

    def __init__(self, carrier: Carrier) -> None:
        self.protocol = spdy.Connection()
        self.opened: asyncio.Queue[Stream | None] = asyncio.Queue()
        self._carrier = carrier
        self._streams: dict[int, Stream] = {}
        self._sending = asyncio.Lock()

    async def write(self, frames: bytes) -> None:
        """Raises OSError when the client is gone."""
        async with self._sending:
            await self._carrier.send(frames)

    async def run(self) -> None:
        """Until the client is gone; every stream and `opened` get their end then."""
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
            case spdy.StreamOpened(number) if number in self._streams or len(self._streams) >= _MOST_STREAMS:
                await self.write(self.protocol.reset(number, spdy.REFUSED_STREAM))
            case spdy.StreamOpened(number, headers, fin):
                stream = self._streams[number] = Stream(self, number, headers)
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

    def forget(self, *streams: Stream) -> None:
        """Streams that are done with: a long port-forward opens two for each connection."""
        for stream in streams:
            self._streams.pop(stream.number, None)
            stream.drop()

    async def close(self) -> None:
        await self._carrier.close()
