"""A single-threaded event loop: descriptors, timers, signals, and children for blocking work."""

from __future__ import annotations

import heapq
import os
import pickle
import selectors
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

Callback = Callable[[], None]


class Loop:
    """A level-triggered loop. run() ends only when a callback raises SystemExit."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Callback]] = []
        self._count = 0
        self._signals: dict[int, Callback] = {}
        self._wakeup = -1

    def watch(
        self,
        fd: int,
        *,
        read: Callback | None = None,
        write: Callback | None = None,
    ) -> None:
        """Replaces the callbacks of fd. Call it without callbacks before closing fd."""
        events = (selectors.EVENT_READ if read else 0) | (selectors.EVENT_WRITE if write else 0)
        known = fd in self._selector.get_map()
        if not events:
            if known:
                self._selector.unregister(fd)
        elif known:
            self._selector.modify(fd, events, (read, write))
        else:
            self._selector.register(fd, events, (read, write))

    def later(self, seconds: float, callback: Callback) -> None:
        """Calls callback once, after so many seconds."""
        self._count += 1
        heapq.heappush(self._timers, (time.monotonic() + seconds, self._count, callback))

    def on_signal(self, number: int, callback: Callback) -> None:
        """Calls callback when the signal arrives.

        Every signal needs a handler: the kernel discards others for PID 1 (pid_namespaces(7)).
        """
        if self._wakeup < 0:
            self._wakeup, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            signal.set_wakeup_fd(writer)
            self.watch(self._wakeup, read=self._signalled)
        self._signals[number] = callback
        signal.signal(number, lambda _number, _frame: None)

    def offload(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Runs blocking work in a forked child; done gets its result or the exception it raised."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for number in self._signals:
                signal.signal(number, signal.SIG_DFL)
            os.close(reader)
            _run_and_exit(work, writer)
        os.close(writer)
        chunks: list[bytes] = []

        def collect() -> None:
            if chunk := os.read(reader, 65536):
                chunks.append(chunk)
                return
            self.watch(reader)
            os.close(reader)
            os.waitpid(pid, 0)
            data = b"".join(chunks)
            done(pickle.loads(data) if data else ChildProcessError("worker died"))

        self.watch(reader, read=collect)

    def run(self) -> None:
        """Runs until a callback raises SystemExit."""
        while True:
            for key, mask in self._selector.select(self._timeout()):
                try:
                    self._call(key, mask)
                except Exception:
                    # A client's error must not affect the others, so only this descriptor is
                    # removed. One that serves all clients is kept.
                    text = f"descriptor {key.fd}: {traceback.format_exc()}"
                    print(text, file=sys.stderr, flush=True)
                    if not _listens(key.fd):
                        self.watch(key.fd)
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                timer = heapq.heappop(self._timers)[2]
                try:
                    timer()
                except Exception:
                    print(f"timer: {traceback.format_exc()}", file=sys.stderr, flush=True)

    def _call(self, key: selectors.SelectorKey, mask: int) -> None:
        read, write = key.data
        if mask & selectors.EVENT_READ and read:
            read()
        if mask & selectors.EVENT_WRITE and write and self._selector.get_map().get(key.fd) == key:
            write()

    def _timeout(self) -> float | None:
        return max(self._timers[0][0] - time.monotonic(), 0.0) if self._timers else None

    def _signalled(self) -> None:
        for number in os.read(self._wakeup, 64):
            if (callback := self._signals.get(number)) is not None:
                callback()


def _listens(fd: int) -> bool:
    """Whether fd serves several clients: it is a listening socket or a datagram socket."""
    import socket

    try:
        with socket.socket(fileno=os.dup(fd)) as sock:
            kind = sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
            listening = bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
            return kind == socket.SOCK_DGRAM or listening
    except OSError:
        return False


def _run_and_exit(work: Callable[[], Any], writer: int) -> None:
    result: Any
    try:
        result = work()
    except Exception as err:  # the parent's callback gets it
        result = err
    data = memoryview(pickle.dumps(result))
    while data:
        data = data[os.write(writer, data) :]
    os._exit(0)
