"""port-forward: connections into a pod's network namespace, with two streams each.

Over SPDY the client opens a data stream and an error stream with the headers streamType, port and
requestID, as often as it likes. Over the channels of a WebSocket it gets one connection for each
port of the request: port number i (from 0) has its data on channel 2i and its errors on channel
2i + 1, and both begin with the port as two bytes, the lower one first. Errors are plain text
(https://kubernetes.io/docs/reference/kubectl/generated/kubectl_port-forward/).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from kubewire.components.kubelet.streaming.numbered import Closed, NumberedMessages
from kubewire.components.kubelet.streaming.spdy_streams import SpdyStreams, Stream
from kubewire.components.kubelet.streaming.target import ContainerTarget, TargetError


@dataclass(frozen=True)
class Pod:
    """The pod of a port-forward session."""

    namespace: str
    name: str
    uid: str = ""


async def serve(connection: SpdyStreams, target: ContainerTarget, pod: Pod) -> None:
    """Pairs streams by requestID and forwards each pair, until the client is gone."""
    waiting: dict[str, dict[str, Stream]] = {}
    forwards: set[asyncio.Task[None]] = set()
    try:
        while (stream := await connection.opened.get()) is not None:
            request = stream.headers.get("requestid", "")
            pair = waiting.setdefault(request, {})
            pair[stream.headers.get("streamtype", "")] = stream
            if {"data", "error"} <= pair.keys():
                del waiting[request]
                work = _forward(connection, pair["data"], pair["error"], target, pod)
                task = asyncio.ensure_future(work)
                forwards.add(task)
                task.add_done_callback(forwards.discard)
    finally:
        for task in forwards:
            task.cancel()
        await asyncio.gather(*forwards, return_exceptions=True)


async def _forward(
    connection: SpdyStreams,
    data: Stream,
    error: Stream,
    target: ContainerTarget,
    pod: Pod,
) -> None:
    port = data.headers.get("port", "")
    try:
        reader, writer = await target.port_connect(pod.namespace, pod.name, int(port))
    except (OSError, TargetError, ValueError) as problem:
        text = _failure(port, pod, problem)
        with suppress(OSError):
            await error.send(text.encode())
            await error.close()
            await data.close()
        connection.forget(data, error)
        return
    downward = asyncio.ensure_future(_to_pod(data, writer))
    try:
        await _from_pod(reader, data)
        with suppress(OSError):
            await error.close()
    finally:
        downward.cancel()
        await asyncio.gather(downward, return_exceptions=True)
        connection.forget(data, error)
        writer.close()


def _failure(port: int | str, pod: Pod, problem: Exception) -> str:
    return f"error forwarding port {port} to pod {pod.name}, uid {pod.uid}: {problem}"


class _Channel:
    """The pod's side of a WebSocket's data channel: a connection into the pod, or its failure."""

    def __init__(self, messages: NumberedMessages, index: int, port: int) -> None:
        self._messages = messages
        self._data = 2 * index
        self._port = port
        self._opened: asyncio.Future[asyncio.StreamWriter | None] = asyncio.Future()

    async def announce(self) -> None:
        """Says the port on both channels, as the client expects before anything else."""
        for number in (self._data, self._data + 1):
            await self._messages.send(number, self._port.to_bytes(2, "little"))

    async def carry(self, target: ContainerTarget, pod: Pod) -> None:
        """Connects, and carries what the pod says until it closes its side."""
        try:
            reader, writer = await target.port_connect(pod.namespace, pod.name, self._port)
        except (OSError, TargetError) as problem:
            self._opened.set_result(None)
            text = _failure(self._port, pod, problem)
            await self._messages.send(self._data + 1, text.encode())
            return
        self._opened.set_result(writer)
        try:
            with suppress(OSError):
                while chunk := await reader.read(32 * 1024):
                    await self._messages.send(self._data, chunk)
        finally:
            writer.close()

    async def write(self, data: bytes) -> None:
        """Writes what the client says; drops it when the pod does not take it any more."""
        writer = await self._opened
        if writer is not None and not writer.is_closing():
            with suppress(OSError):
                writer.write(data)
                await writer.drain()


async def serve_numbered(
    messages: NumberedMessages,
    ports: Sequence[int],
    target: ContainerTarget,
    pod: Pod,
) -> None:
    """Forwards each port once, until every connection has ended or the client is gone."""
    channels = [_Channel(messages, index, port) for index, port in enumerate(ports)]
    with suppress(Closed):
        for channel in channels:
            await channel.announce()
    forwards = asyncio.gather(*(channel.carry(target, pod) for channel in channels))
    incoming = asyncio.ensure_future(_dispatch(messages, channels))
    either: set[asyncio.Future[Any]] = {forwards, incoming}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    finally:
        forwards.cancel()
        incoming.cancel()
        await asyncio.gather(forwards, incoming, return_exceptions=True)


async def _dispatch(messages: NumberedMessages, channels: Sequence[_Channel]) -> None:
    """Gives what the client says to its connection. As upstream's, one port that does not read
    makes the others wait."""
    with suppress(Closed):
        while True:
            number, data = await messages.receive()
            index, is_error = divmod(number, 2)
            if data and not is_error and 0 <= index < len(channels):
                await channels[index].write(data)


async def _to_pod(stream: Stream, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while (chunk := await stream.receive()) is not None:
            writer.write(chunk)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


async def _from_pod(reader: asyncio.StreamReader, stream: Stream) -> None:
    with suppress(OSError):
        while chunk := await reader.read(32 * 1024):
            await stream.send(chunk)
        await stream.close()
