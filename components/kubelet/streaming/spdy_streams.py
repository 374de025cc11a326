"""Streams of a SPDY connection over anything that carries bytes: an upgraded socket, or WebSocket messages."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

from components.kubelet.streaming import spdy


class Carrier(Protocol):
    """A connection's bytes. receive returns b"" at the end; send raises OSError when the peer is gone."""

    async def receive(self) -> bytes: ...
    async def send(self, data: bytes) -> None: ...
    async def close(self) -> None: ...


class Stream:
    """One stream: what the peer sends arrives in a queue, None is its end."""

    def __init__(self, connection: SpdyStreams, number: int, headers: Mapping[str, str]) -> None:
        self.number, self.headers = number, headers
        self.incoming: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._connection = connection
        self._closed = False

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
                for event in self.protocol.receive(data):
                    await self._handle(event)
        except (OSError, spdy.SpdyError):
            pass
        finally:
            for stream in self._streams.values():
                stream.incoming.put_nowait(None)
            self.opened.put_nowait(None)

    async def _handle(self, event: spdy.Event) -> None:
        match event:
            case spdy.StreamOpened(number, headers, fin):
                stream = self._streams[number] = Stream(self, number, headers)
                await self.write(self.protocol.reply(number))
                if fin:
                    stream.incoming.put_nowait(None)
                self.opened.put_nowait(stream)
            case spdy.DataReceived(number, data, fin) if number in self._streams:
                if data:
                    self._streams[number].incoming.put_nowait(data)
                if fin:
                    self._streams[number].incoming.put_nowait(None)
            case spdy.StreamReset(number) if number in self._streams:
                self._streams[number].incoming.put_nowait(None)
            case spdy.Pinged(number):
                await self.write(self.protocol.ping(number))

    def forget(self, *streams: Stream) -> None:
        """Streams that are done with: a long port-forward opens two for each connection."""
        for stream in streams:
            self._streams.pop(stream.number, None)

    async def close(self) -> None:
        await self._carrier.close()
