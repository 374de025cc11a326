"""A small event loop for the fork server: callbacks for readable and writable descriptors.

An exception in a callback is written to stderr and ends the callbacks of that descriptor. It does
not end the loop, so that no client and no process can affect the others.
"""

from __future__ import annotations

import selectors
import sys
import traceback
from collections.abc import Callable

Callback = Callable[[], None]


class Loop:
    """A level-triggered loop; a descriptor has at most one reader and one writer."""

    def __init__(self) -> None:
        self._selector = selectors.EpollSelector()
        self._running = True

    def set_reader(self, fd: int, callback: Callback | None) -> None:
        """Calls callback while fd is readable; None stops that."""
        self._change(fd, reader=callback, writer=self._callbacks(fd)[1])

    def set_writer(self, fd: int, callback: Callback | None) -> None:
        """Calls callback while fd is writable; None stops that."""
        self._change(fd, reader=self._callbacks(fd)[0], writer=callback)

    def forget(self, fd: int) -> None:
        """Removes all callbacks of fd; call this before closing it."""
        self._change(fd, None, None)

    def stop(self) -> None:
        self._running = False

    def run(self, until: Callable[[], bool] | None = None, timeout: float | None = None) -> None:
        """Runs until stop(), until the condition holds, or for timeout seconds without an event."""
        while self._running and not (until and until()):
            ready = self._selector.select(timeout)
            if not ready and timeout is not None:
                return
            for key, mask in ready:
                try:
                    self._call(key.fd, mask)
                except Exception:
                    text = f"runtime: descriptor {key.fd}: {traceback.format_exc()}"
                    print(text, file=sys.stderr, flush=True)
                    self.forget(key.fd)

    def _call(self, fd: int, mask: int) -> None:
        reader, writer = self._callbacks(fd)
        if mask & selectors.EVENT_READ and reader:
            reader()
        # The reader may have removed the writer, or closed the descriptor.
        writer = self._callbacks(fd)[1] if writer else None
        if mask & selectors.EVENT_WRITE and writer:
            writer()

    def resume(self) -> None:
        self._running = True

    def _callbacks(self, fd: int) -> tuple[Callback | None, Callback | None]:
        key = self._selector.get_map().get(fd)
        return (None, None) if key is None else key.data

    def _change(self, fd: int, reader: Callback | None, writer: Callback | None) -> None:
        events = (selectors.EVENT_READ if reader else 0) | (selectors.EVENT_WRITE if writer else 0)
        known = fd in self._selector.get_map()
        if not events:
            if known:
                self._selector.unregister(fd)
        elif known:
            self._selector.modify(fd, events, (reader, writer))
        else:
            self._selector.register(fd, events, (reader, writer))
