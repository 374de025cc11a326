"""The API door: a process that copies bytes between a port on the machine's loopback and the API
server's unix socket.

`kubectl` on the machine must reach the API server, which runs in a network namespace without any
link to the machine. A socket keeps the network namespace in which it was created, so the simplest
way would be to bind 127.0.0.1:PORT on the machine and let the API server inherit the socket. But a
process that holds a TCP socket can disconnect it and connect(2) it again, to any address that the
machine reaches, and this would be a way out of the lab. Therefore no process of the lab may hold
such a socket, neither a listening nor an accepted one. The door alone holds them, and connects each
to a unix socket, which leads nowhere else.

Two namespaces of the door must not be confused. It is in the lab's pid namespace, so the kernel
kills it when the lab ends. It is in the user namespace of the user who started the lab, so no
process of the lab has the right to trace it or to take its descriptors (ptrace(2), pidfd_getfd(2)).
"""

from __future__ import annotations

import os
import selectors
import socket
from typing import NoReturn

from kubewire.components.kernel import namespaces as ns

#: Bytes read at once, and so the most that is buffered for an end that does not read.
_CHUNK = 64 * 1024
#: Simultaneous connections; further ones wait in the listening socket's queue.
MAX_CONNECTIONS = 2048


class Passage:
    """One connection: its TCP socket (outer) and its unix socket (inner). Copies the stream of each
    to the other, and also the end of the stream (a half-close, as TCP has it)."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        outer: socket.socket,
        inner: socket.socket,
    ) -> None:
        self._selector = selector
        self._other = {outer: inner, inner: outer}
        self._unsent = {outer: b"", inner: b""}
        self._reads = {outer, inner}
        self._writes = {outer, inner}
        for end in (outer, inner):
            end.setblocking(False)
            selector.register(end, selectors.EVENT_READ, self)

    def ready(self, end: socket.socket, events: int) -> bool:
        """Copy what can be copied without blocking. Returns False if the connection has ended; it
        is closed then."""
        try:
            if events & selectors.EVENT_READ and end in self._reads:
                self._read(end)
            if events & selectors.EVENT_WRITE:
                self._write(end)
        except BlockingIOError:
            return True
        except OSError:  # one of the two sides has reset the connection
            self.close()
            return False
        if not self._reads and not any(self._unsent.values()):
            self.close()
            return False
        for one in self._other:
            self._watch(one)
        return True

    def close(self) -> None:
        """Close both ends."""
        for end in self._other:
            if end.fileno() in self._selector.get_map():
                self._selector.unregister(end)
            end.close()

    def _read(self, end: socket.socket) -> None:
        data = end.recv(_CHUNK)
        other = self._other[end]
        if data:
            self._unsent[other] = data
        else:
            self._reads.discard(end)
        self._write(other)

    def _write(self, end: socket.socket) -> None:
        if self._unsent[end]:
            try:
                self._unsent[end] = self._unsent[end][end.send(self._unsent[end]) :]
            except BlockingIOError:
                return
        if not self._unsent[end] and self._other[end] not in self._reads and end in self._writes:
            self._writes.discard(end)
            end.shutdown(socket.SHUT_WR)

    def _watch(self, end: socket.socket) -> None:
        """Select the events of end. It is read only while the other end has nothing left to
        send, so that a slow reader slows down its peer instead of filling memory."""
        events = 0
        if end in self._reads and not self._unsent[self._other[end]]:
            events |= selectors.EVENT_READ
        if self._unsent[end]:
            events |= selectors.EVENT_WRITE
        watched = end.fileno() in self._selector.get_map()
        if events and watched:
            self._selector.modify(end, events, self)
        elif events:
            self._selector.register(end, events, self)
        elif watched:
            self._selector.unregister(end)


def carry(listener: socket.socket, target: str) -> NoReturn:
    """Accept connections from listener for ever, and join each to the unix socket at target."""
    selector = selectors.DefaultSelector()
    listener.setblocking(False)
    selector.register(listener, selectors.EVENT_READ, None)
    count = 0
    while True:
        for key, events in selector.select():
            if key.data is not None:
                # The other end may have been handled earlier in this round, and have closed both.
                end = key.fileobj
                if not isinstance(end, socket.socket) or end.fileno() < 0:
                    continue
                if not key.data.ready(end, events):
                    count -= 1
            elif _accept(selector, listener, target):
                count += 1
        _wait_for_room(selector, listener, count)


def _wait_for_room(selector: selectors.BaseSelector, listener: socket.socket, count: int) -> None:
    accepts = listener.fileno() in selector.get_map()
    if accepts and count >= MAX_CONNECTIONS:
        selector.unregister(listener)
    elif not accepts and count < MAX_CONNECTIONS:
        selector.register(listener, selectors.EVENT_READ, None)


def _accept(selector: selectors.BaseSelector, listener: socket.socket, target: str) -> bool:
    try:
        outer, _ = listener.accept()
    except OSError:  # the client has reset it already
        return False
    outer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    inner = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        inner.setblocking(False)
        inner.connect(target)
    except OSError:  # the API server does not listen, or its queue is full
        outer.close()
        inner.close()
        return False
    Passage(selector, outer, inner)
    return True


def serve(init: int, listener: socket.socket, inside: int) -> None:
    """Fork the door into the pid and network namespaces of init, the lab's first process.

    inside: the API server's unix socket, opened with O_PATH, so that the door does not look up a
    path in the lab. Raises OSError.
    """

    def stay() -> NoReturn:
        ns.set_process_name("kubewire-door")
        ns.without_rights()
        _keep_only({0, 1, 2, listener.fileno(), inside})
        carry(listener, f"/proc/self/fd/{inside}")

    ns.run_beside(init, "open the API door", stay, wait=False)


def _keep_only(kept: set[int]) -> None:
    low = 0
    for number in sorted(kept):
        if low < number:  # in Python 3.11, closerange(0, 0) closes every descriptor
            os.closerange(low, number)
        low = number + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))
