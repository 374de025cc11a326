"""The fork server's peers: clients on its socket, and the forking parents. Nothing here blocks."""

from __future__ import annotations

import os
import socket
import sys
import time
import traceback
from collections import deque
from typing import Any, Protocol

from . import wire, zygote
from .loop import Loop


class Server(Protocol):
    """The receiver of requests and messages, which is server.py."""

    loop: Loop

    def request(self, connection: Connection, message: dict[str, Any], fds: list[int]) -> None:
        """Handles a request of a client. Takes over fds."""

    def disconnected(self, connection: Connection) -> None: ...

    def parent_told(self, kind: bytes, serial: int, value: int) -> None: ...

    def parent_died(self, name: str) -> None: ...


class Parent:
    """The fork server's end of the channel to a forking parent. send() never blocks."""

    def __init__(self, server: Server, name: str, channel: socket.socket) -> None:
        self.name = name
        self._server = server
        self._channel = channel
        self._queue: deque[tuple[bytes, list[int]]] = deque()
        channel.setblocking(False)
        server.loop.set_reader(channel.fileno(), self._readable)

    def send(self, kind: bytes, serial: int, value: int, fds: list[int] | None = None) -> None:
        """Sends a message. Takes over fds."""
        self._queue.append((zygote.MESSAGE.pack(kind, serial, value), fds or []))
        self._flush()

    def _flush(self) -> None:
        while self._queue:
            data, fds = self._queue[0]
            try:
                wire.send_once(self._channel, data, fds)
            except BlockingIOError:
                self._server.loop.set_writer(self._channel.fileno(), self._flush)
                return
            except OSError:
                self._server.parent_died(self.name)
                return
            self._queue.popleft()
            for fd in fds:
                os.close(fd)
        self._server.loop.set_writer(self._channel.fileno(), None)

    def _readable(self) -> None:
        try:
            data = self._channel.recv(zygote.MESSAGE.size)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._server.parent_died(self.name)
            return
        kind, serial, value = zygote.MESSAGE.unpack(data)
        try:
            self._server.parent_told(kind, serial, value)
        except Exception:
            # The error concerns one process, but the channel serves all.
            print(
                f"runtime: process {serial}: {traceback.format_exc()}",
                file=sys.stderr,
                flush=True,
            )


#: The most bytes that may wait for a client that does not read.
MAX_UNREAD = 16 * 1024 * 1024
#: Seconds that a frame with descriptors may take to arrive. One of its descriptors may be the
#: client's own end of the connection, which then never closes.
PATIENCE_S = 30.0


class Connection:
    """A client. An error of a client is written to stderr and ends its connection, nothing else."""

    def __init__(self, server: Server, sock: socket.socket) -> None:
        self._server = server
        self._socket = sock
        self._reader = wire.FrameReader()
        self._name = f"client of pid {_peer_pid(sock)}"
        self._out = bytearray()
        self.open = True
        self._waiting_since = 0.0
        self.subscriptions: list[dict[str, str]] = []
        sock.setblocking(False)
        server.loop.set_reader(sock.fileno(), self._readable)

    def send(self, message: dict[str, Any]) -> None:
        if self.open:
            self._out += wire.encode(message)
            self._flush()
            if len(self._out) > MAX_UNREAD:
                text = f"runtime: {self._name}: does not read: {len(self._out)} bytes wait"
                print(text, file=sys.stderr, flush=True)
                self.close()

    def is_stale(self, now: float) -> bool:
        """Whether a frame with descriptors has been incomplete for too long."""
        return bool(self._waiting_since) and now - self._waiting_since > PATIENCE_S

    def close(self) -> None:
        if not self.open:
            return
        self.open = False
        self._server.loop.forget(self._socket.fileno())
        self._reader.close()
        self._socket.close()
        self._server.disconnected(self)

    def _flush(self) -> None:
        try:
            while self._out:
                del self._out[: self._socket.send(self._out, socket.MSG_NOSIGNAL)]
        except BlockingIOError:
            self._server.loop.set_writer(self._socket.fileno(), self._flush)
            return
        except OSError:
            self.close()
            return
        self._server.loop.set_writer(self._socket.fileno(), None)

    def _readable(self) -> None:
        try:
            data, fds = wire.receive_once(self._socket)
        except BlockingIOError:
            return
        except wire.BadFrame as err:
            print(f"runtime: {self._name}: bad request: {err}", file=sys.stderr, flush=True)
            self.close()
            return
        except OSError:
            data = b""
            fds = []
        if not data:
            self.close()
            return
        try:
            for message, descriptors in self._reader.feed(data, fds):
                self._server.request(self, message, descriptors)
                if not self.open:
                    return
            if not self._reader.holds_descriptors:
                self._waiting_since = 0.0
            elif not self._waiting_since:
                self._waiting_since = time.monotonic()
        except wire.BadFrame as err:
            print(f"runtime: {self._name}: bad request: {err}", file=sys.stderr, flush=True)
            self.close()
        except Exception:
            print(f"runtime: {self._name}: {traceback.format_exc()}", file=sys.stderr, flush=True)
            self.close()


def _peer_pid(sock: socket.socket) -> int:
    """The pid from SO_PEERCRED (unix(7)); 0 for a client in a pid namespace that is not visible."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(credentials[:4], sys.byteorder)
