"""port-forward: connections into a pod's network namespace, with two SPDY streams each.

The client opens a data stream and an error stream with the headers streamType, port and requestID.
Errors are plain text on the error stream
(https://kubernetes.io/docs/reference/kubectl/generated/kubectl_port-forward/).
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

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
        text = f"error forwarding port {port} to pod {pod.name}, uid {pod.uid}: {problem}"
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
