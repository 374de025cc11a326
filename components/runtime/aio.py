"""The asyncio client of the fork server, for the kubelet: many calls at once on one connection."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from . import wire
from .client import result_of, spawn_request
from .spec import Completed, Disconnected, ExitStatus, Process, ProcessSpec, process_from_json


class AsyncRuntimeClient:
    """RuntimeClient with coroutines; made with `await AsyncRuntimeClient.connect(path)`.

    When the fork server goes away, pending calls raise Disconnected and iterators of subscribe()
    end.
    """

    def __init__(self, sock: socket.socket, path: str) -> None:
        self._socket = sock
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._reader = wire.FrameReader()
        self._number = 0
        self._pending: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._subscribers: list[asyncio.Queue[Process | None]] = []
        self._outgoing: deque[tuple[memoryview, list[int]]] = deque()
        self._closed = False
        self._loop.add_reader(sock, self._readable)

    @classmethod
    async def connect(cls, socket_path: str | Path) -> AsyncRuntimeClient:
        """Connects. Raises Disconnected if no fork server listens at socket_path."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, str(socket_path))
        except OSError as err:
            sock.close()
            raise Disconnected(f"fork server at {socket_path}: {err.strerror}") from err
        return cls(sock, str(socket_path))

    @property
    def closed(self) -> bool:
        return self._closed

    async def close(self) -> None:
        self._shut("closed")

    async def spawn(
        self,
        spec: ProcessSpec,
        *,
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
        fds: Mapping[int, int] | None = None,
    ) -> Process:
        """Like RuntimeClient.spawn(). The caller may close its descriptors once this returns."""
        with ExitStack() as stack:
            message, descriptors = spawn_request(spec, stdin, stdout, stderr, fds or {}, stack)
            return process_from_json(await self._call(message, descriptors))

    async def get(self, process_id: str) -> Process:
        return process_from_json(await self._call({"op": "get", "id": process_id}))

    async def list(self, labels: Mapping[str, str] | None = None) -> list[Process]:
        """The processes with all these labels, oldest first, including those that have exited."""
        bodies = await self._call({"op": "list", "labels": dict(labels or {})})
        return [process_from_json(body) for body in bodies]

    async def wait(self, process_id: str) -> ExitStatus:
        """Waits until the process has ended; use asyncio.timeout() to limit the time."""
        process = process_from_json(await self._call({"op": "wait", "id": process_id}))
        assert process.exit is not None
        return process.exit

    async def signal(self, process_id: str, number: int) -> None:
        """Sends a signal; does nothing if the process has ended."""
        await self._call({"op": "signal", "id": process_id, "signal": int(number)})

    async def remove(self, process_id: str, *, force: bool = False) -> None:
        """Forgets an exited process; force: kills a running one first. Idempotent."""
        await self._call({"op": "remove", "id": process_id, "force": force})

    async def resize(self, process_id: str, rows: int, columns: int) -> None:
        await self._call({"op": "resize", "id": process_id, "rows": rows, "columns": columns})

    async def attach(
        self,
        process_id: str,
        *,
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
    ) -> None:
        """Like RuntimeClient.attach(): connects pipes or sockets to the process's streams."""
        given = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
        named = {name: fd for name, fd in given.items() if fd is not None}
        message = {"op": "attach", "id": process_id, "fds": list(named)}
        await self._call(message, list(named.values()))

    async def subscribe(self, labels: Mapping[str, str] | None = None) -> AsyncIterator[Process]:
        """Returns an iterator over processes with these labels that end from now on.

        `async for process in await client.subscribe({...})`. It ends with the connection.
        """
        wanted = dict(labels or {})
        queue: asyncio.Queue[Process | None] = asyncio.Queue()
        self._subscribers.append(queue)
        await self._call({"op": "subscribe", "labels": {}})
        return self._exits(queue, wanted)

    async def _exits(
        self,
        queue: asyncio.Queue[Process | None],
        wanted: dict[str, str],
    ) -> AsyncIterator[Process]:
        try:
            while (process := await queue.get()) is not None:
                if wanted.items() <= dict(process.labels).items():
                    yield process
        finally:
            self._subscribers.remove(queue)

    async def run(
        self,
        spec: ProcessSpec,
        *,
        stdin: bytes = b"",
        timeout: float | None = None,
        limit: int = 64 * 1024 * 1024,
    ) -> Completed:
        """Runs a process to its end: feeds stdin, collects stdout and stderr, waits, removes it.

        limit: the most bytes kept of stdout and of stderr. The process is killed on TimeoutError.
        """
        ends = [os.pipe() for _ in range(3)]
        process_ends = [ends[0][0], ends[1][1], ends[2][1]]
        own_ends = [ends[0][1], ends[1][0], ends[2][0]]
        try:
            process = await self.spawn(
                spec,
                stdin=process_ends[0],
                stdout=process_ends[1],
                stderr=process_ends[2],
            )
        except BaseException:
            for fd in own_ends:
                os.close(fd)
            raise
        finally:
            for fd in process_ends:
                os.close(fd)
        try:
            async with asyncio.timeout(timeout):
                _, stdout, stderr = await asyncio.gather(
                    _feed(own_ends[0], stdin),
                    _collect(own_ends[1], limit),
                    _collect(own_ends[2], limit),
                )
                status = await self.wait(process.id)
        finally:
            await self.remove(process.id, force=True)
        return Completed(status, stdout, stderr)

    async def _call(self, message: dict[str, Any], fds: Sequence[int] = ()) -> Any:
        if self._closed:
            raise Disconnected(f"fork server at {self._path}: connection closed")
        self._number += 1
        number = self._number
        future: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._pending[number] = future
        # The descriptors are duplicated, because the caller may close its own (or be cancelled)
        # before the socket takes them.
        data = memoryview(wire.encode({**message, "n": number}))
        self._outgoing.append((data, [os.dup(fd) for fd in fds]))
        self._flush()
        try:
            return result_of(await future)
        finally:
            self._pending.pop(number, None)

    def _flush(self) -> None:
        while self._outgoing:
            data, fds = self._outgoing[0]
            try:
                sent = wire.send_once(self._socket, data, fds)
            except BlockingIOError:
                self._loop.add_writer(self._socket, self._flush)
                return
            except OSError as err:
                self._shut(err.strerror or str(err))
                return
            for fd in fds:
                os.close(fd)
            if sent < len(data):
                self._outgoing[0] = (data[sent:], [])
            else:
                self._outgoing.popleft()
        self._loop.remove_writer(self._socket)

    def _readable(self) -> None:
        try:
            data, fds = wire.receive_once(self._socket)
        except BlockingIOError:
            return
        except OSError as err:
            self._shut(err.strerror or str(err))
            return
        if not data:
            self._shut("connection closed")
            return
        for message, _ in self._reader.feed(data, fds):
            if "event" in message:
                process = process_from_json(message["process"])
                for queue in self._subscribers:
                    queue.put_nowait(process)
            elif (future := self._pending.get(message["n"])) is not None and not future.done():
                future.set_result(message)

    def _shut(self, why: str) -> None:
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        self._reader.close()
        for _, fds in self._outgoing:
            for fd in fds:
                os.close(fd)
        self._outgoing.clear()
        for future in self._pending.values():
            if not future.done():
                future.set_exception(Disconnected(f"fork server at {self._path}: {why}"))
        for queue in self._subscribers:
            queue.put_nowait(None)


async def _collect(fd: int, limit: int) -> bytes:
    """Reads a pipe to its end, keeps at most limit bytes, and closes it."""
    loop = asyncio.get_running_loop()
    stream = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream),
        os.fdopen(fd, "rb"),
    )
    kept = bytearray()
    try:
        while chunk := await stream.read(64 * 1024):
            kept += chunk[: limit - len(kept)]
    finally:
        transport.close()
    return bytes(kept)


async def _feed(fd: int, data: bytes) -> None:
    """Writes data to a pipe and closes it; a reader that closes its end early is not an error."""
    if not data:
        os.close(fd)
        return
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(
        asyncio.streams.FlowControlMixin,
        os.fdopen(fd, "wb"),
    )
    writer = asyncio.StreamWriter(transport, protocol, None, loop)
    try:
        writer.write(data)
        await writer.drain()
        writer.close()
    except (BrokenPipeError, ConnectionResetError):
        transport.close()
