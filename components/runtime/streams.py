"""The streams of a process that the fork server copies: to the log, the terminal, attached clients.

All descriptors are non-blocking pipes, sockets or a pty master, and all work is done in the fork
server's loop. If an attached client does not read, the process's output is not read any more once
PENDING_MAX bytes wait for the client. The process then blocks, as it does with containerd.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import sys
import termios
import time
from contextlib import suppress

from .cri_log import LineSplitter, LogFile
from .loop import Loop

CHUNK = 64 * 1024
PENDING_MAX = 256 * 1024


class _Sink:
    """An attached client's pipe or socket for an output stream."""

    def __init__(self, loop: Loop, fd: int, source: _Source) -> None:
        os.set_blocking(fd, False)
        self._loop = loop
        self._fd = fd
        self._source = source
        self._ending = False
        self.pending = bytearray()

    def write(self, data: bytes) -> None:
        self.pending += data
        self._flush()

    def end(self) -> None:
        """Closes the sink once all is written."""
        self._ending = True
        self._flush()

    def close(self) -> None:
        self._loop.forget(self._fd)
        os.close(self._fd)
        self._source.drop(self)

    def _flush(self) -> None:
        try:
            while self.pending:
                del self.pending[: os.write(self._fd, self.pending)]
        except BlockingIOError:
            self._loop.set_writer(self._fd, self._flush)
            return
        except OSError:
            # The client is gone, so detach.
            self._ending = True
            self.pending = bytearray()
        self._loop.set_writer(self._fd, None)
        if self._ending:
            self.close()
        else:
            self._source.resume()


class _Source:
    """An output stream of the process, which is logged and copied to sinks."""

    def __init__(
        self,
        loop: Loop,
        fd: int,
        stream: str,
        log: LogFile | None,
        *,
        keep: bool,
    ) -> None:
        os.set_blocking(fd, False)
        self._loop = loop
        self._fd = fd
        self._log = log
        self._splitter = LineSplitter(stream)
        self._sinks: list[_Sink] = []
        # `kubectl run -i` attaches only after the start. The output of a fast program is kept for
        # it.
        self._unheard: bytearray | None = bytearray() if keep else None
        self.open = True
        self.resume()

    def attach(self, fd: int) -> None:
        sink = _Sink(self._loop, fd, self)
        self._sinks.append(sink)
        if self._unheard:
            sink.write(bytes(self._unheard))
        self._unheard = None
        if not self.open:
            sink.end()

    def resume(self) -> None:
        if self.open and all(len(sink.pending) < PENDING_MAX for sink in self._sinks):
            self._loop.set_reader(self._fd, self._readable)

    def drop(self, sink: _Sink) -> None:
        if sink in self._sinks:
            self._sinks.remove(sink)
        self.resume()

    def drain(self) -> None:
        """Reads what is available, without waiting."""
        while self.open and self._read():
            pass

    def close(self) -> None:
        """Ends the stream: writes an unfinished last line to the log, and ends every sink."""
        if not self.open:
            return
        self.open = False
        self._loop.forget(self._fd)
        self._write_log(self._splitter.end(time.time_ns()))
        for sink in list(self._sinks):
            sink.end()

    def abandon(self) -> None:
        self.close()
        for sink in list(self._sinks):
            sink.close()

    def _readable(self) -> None:
        self._read()

    def _read(self) -> bool:
        try:
            data = os.read(self._fd, CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            # EIO means that the last process with the terminal open has closed it (pty(7)).
            data = b""
        if not data:
            self.close()
            return False
        self._write_log(self._splitter.feed(data, time.time_ns()))
        if self._unheard is not None:
            self._unheard += data[: PENDING_MAX - len(self._unheard)]
        for sink in list(self._sinks):
            sink.write(data)
        if any(len(sink.pending) >= PENDING_MAX for sink in self._sinks):
            self._loop.set_reader(self._fd, None)
        return True

    def _write_log(self, lines: bytes) -> None:
        if self._log is None or not lines:
            return
        try:
            self._log.write(lines)
        except OSError as err:
            print(f"runtime: log: {err}", file=sys.stderr, flush=True)


def _can_be_waited_for(fd: int) -> bool:
    """Whether epoll(7) accepts fd: no files, no directories, nothing opened with O_PATH."""
    kind = os.fstat(fd).st_mode
    if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_PATH:
        return False
    return stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind) or stat.S_ISCHR(kind)


class Streams:
    """All streams of a process. It takes over every descriptor that it gets."""

    def __init__(
        self,
        loop: Loop,
        *,
        log: LogFile | None,
        stdin: int | None = None,
        stdin_once: bool = False,
        tty: bool = False,
    ) -> None:
        self._loop = loop
        self._log = log
        self._stdin = stdin
        self._stdin_once = stdin_once
        self._terminal: int | None = None
        # With a terminal, clients have to wait until the child has opened it.
        self._waiting: list[tuple[int | None, int | None, int | None]] | None = [] if tty else None
        self._owned: set[int] = set()
        self._sources: dict[str, _Source] = {}
        self._inputs: dict[int, bytearray] = {}
        if stdin is not None:
            os.set_blocking(stdin, False)

    def add_output(self, stream: str, fd: int) -> None:
        """Adds fd as the process's stdout or stderr."""
        self._owned.add(fd)
        self._sources[stream] = _Source(self._loop, fd, stream, self._log, keep=self._stdin_once)

    def set_terminal(self, master: int) -> None:
        """Adds the pty master, which is both stdin and stdout."""
        self._terminal = master
        self._stdin = master
        self.add_output("stdout", master)
        waiting = self._waiting or []
        self._waiting = None
        for fds in waiting:
            self.attach(*fds)

    def attach(self, stdin: int | None, stdout: int | None, stderr: int | None) -> None:
        """Connects a client's pipes or sockets; closes what has no stream, and other
        descriptors."""
        if self._waiting is not None:
            self._waiting.append((stdin, stdout, stderr))
            return
        if stdin is not None:
            self._attach_input(stdin)
        for name, fd in (("stdout", stdout), ("stderr", stderr)):
            if fd is None:
                continue
            source = self._sources.get(name)
            if source is not None and _can_be_waited_for(fd):
                source.attach(fd)
            else:
                os.close(fd)

    def _attach_input(self, fd: int) -> None:
        if self._stdin is None or not _can_be_waited_for(fd):
            os.close(fd)
            return
        os.set_blocking(fd, False)
        self._inputs[fd] = bytearray()
        try:
            self._loop.set_reader(fd, lambda: self._read_input(fd))
        except OSError:
            self._close_input(
                fd,
            )  # epoll(7) refuses a device that is always ready, such as /dev/null

    def resize(self, rows: int, columns: int) -> None:
        """Sets the terminal's size (TIOCSWINSZ, ioctl_tty(2)); does nothing without a terminal."""
        if self._terminal is not None:
            size = struct.pack("HHHH", rows, columns, 0, 0)
            with suppress(OSError):
                fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, size)

    def finish(self) -> None:
        """Reads the rest of the output, and closes the input, after the process has ended."""
        for source in self._sources.values():
            source.drain()
        self._close_stdin()
        if self._terminal is not None and "stdout" in self._sources:
            self._sources["stdout"].close()

    def close(self) -> None:
        """Closes everything."""
        self._close_stdin()
        for fds in self._waiting or ():
            for fd in fds:
                if fd is not None:
                    os.close(fd)
        self._waiting = None
        for source in self._sources.values():
            source.abandon()
        for fd in self._owned:
            os.close(fd)
        self._owned.clear()
        if self._log is not None:
            self._log.close()
            self._log = None

    def _read_input(self, fd: int) -> None:
        pending = self._inputs[fd]
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close_input(fd)
            if self._stdin_once and self._terminal is None:
                self._close_stdin()
            return
        pending += data
        self._loop.set_reader(fd, None)
        self._write_stdin(fd)

    def _write_stdin(self, fd: int) -> None:
        pending = self._inputs.get(fd)
        if pending is None or self._stdin is None:
            return
        try:
            while pending:
                del pending[: os.write(self._stdin, pending)]
        except BlockingIOError:
            self._loop.set_writer(self._stdin, lambda: self._write_stdin(fd))
            return
        except OSError:
            self._close_stdin()
            return
        self._loop.set_writer(self._stdin, None)
        self._loop.set_reader(fd, lambda: self._read_input(fd))

    def _close_input(self, fd: int) -> None:
        if self._inputs.pop(fd, None) is not None:
            self._loop.forget(fd)
            os.close(fd)

    def _close_stdin(self) -> None:
        for fd in list(self._inputs):
            self._close_input(fd)
        stdin = self._stdin
        self._stdin = None
        if stdin is None:
            return
        self._loop.set_writer(stdin, None)
        if stdin != self._terminal:
            os.close(stdin)
