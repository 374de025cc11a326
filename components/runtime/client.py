"""The blocking client of the fork server (for the lab's bring-up, the CLI and tests)."""

from __future__ import annotations

import os
import selectors
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from . import wire
from .spec import (
    Completed,
    Disconnected,
    ExitStatus,
    InvalidRequest,
    InvalidSpec,
    Process,
    ProcessSpec,
    RuntimeApiError,
    StartError,
    UnknownProcess,
    check,
    process_from_json,
    to_json,
)


def spawn_request(
    spec: ProcessSpec,
    stdin: int | None,
    stdout: int | None,
    stderr: int | None,
    fds: Mapping[int, int],
    stack: ExitStack,
) -> tuple[dict[str, Any], list[int]]:
    """The spawn message and its descriptors; those opened here (namespaces, log directory) close with stack.

    Raises InvalidSpec; OSError when a namespace path or the log directory cannot be opened.
    """
    check(spec)
    named: dict[str, int] = {}
    for name, fd in (("stdin", stdin), ("stdout", stdout), ("stderr", stderr)):
        if fd is not None:
            named[name] = fd
    if wrong := [target for target in fds if not 3 <= target < 32]:
        raise InvalidSpec(f"fds: {wrong} must be from 3 to 31")
    named.update({f"fd:{target}": fd for target, fd in fds.items()})
    join: dict[str, int] = {}
    for name, where in spec.join.items():
        if isinstance(where, int):
            join[name] = where
        else:
            named[f"ns:{name}"] = opened = os.open(where, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, opened)
    if spec.log_path:
        directory = os.path.dirname(spec.log_path) or "."  # noqa: PTH120 (no pathlib import cost on this path)
        named["log"] = opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, opened)
    body = to_json(spec)
    body["join"] = join
    return {"op": "spawn", "spec": body, "fds": list(named)}, list(named.values())


def result_of(reply: dict[str, Any]) -> Any:
    """The result of a reply, or its error raised as the exception it names."""
    error = reply.get("error")
    if error is None:
        return reply.get("result")
    kind, message = error["kind"], error["message"]
    if kind == "StartError":
        raise StartError(message, error.get("stage", ""), error.get("errno", 0))
    known = {"InvalidRequest": InvalidRequest, "InvalidSpec": InvalidSpec, "UnknownProcess": UnknownProcess}
    raise known.get(kind, RuntimeApiError)(message)


class RuntimeClient:
    """One connection, blocking. Not for use from several threads at once.

    Every method raises Disconnected when the fork server goes away, UnknownProcess for an id it does not know.
    """

    def __init__(self, socket_path: str | Path, *, timeout: float = 60.0) -> None:
        self._path = str(socket_path)
        self._timeout = timeout
        self._reader = wire.FrameReader()
        self._number = 0
        self._events: list[Process] = []
        self._replies: dict[int, dict[str, Any]] = {}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.connect(self._path)
        except OSError as err:
            self._socket.close()
            raise Disconnected(f"fork server at {self._path}: {err.strerror}") from err

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._reader.close()
        self._socket.close()

    def spawn(
        self,
        spec: ProcessSpec,
        *,
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
        fds: Mapping[int, int] | None = None,
    ) -> Process:
        """Start a process; returns once its program runs (exec done, or main about to be called).

        stdin, stdout, stderr: descriptors handed over (None: /dev/null, or the log); the caller keeps and closes
        its own. fds: number in the process -> descriptor here. Raises StartError, InvalidSpec.
        """
        with ExitStack() as stack:
            message, descriptors = spawn_request(spec, stdin, stdout, stderr, fds or {}, stack)
            return process_from_json(self._call(message, descriptors))

    def get(self, process_id: str) -> Process:
        return process_from_json(self._call({"op": "get", "id": process_id}))

    def list(self, labels: Mapping[str, str] | None = None) -> list[Process]:
        """Processes, exited ones included, that carry all these labels; oldest first."""
        return [process_from_json(p) for p in self._call({"op": "list", "labels": dict(labels or {})})]

    def wait(self, process_id: str, timeout: float | None = None) -> ExitStatus:
        """Block until the process has ended. Raises TimeoutError after timeout seconds (None: never)."""
        process = process_from_json(self._call({"op": "wait", "id": process_id}, timeout=timeout, bounded=False))
        assert process.exit is not None
        return process.exit

    def signal(self, process_id: str, number: int) -> None:
        """Send a signal; nothing happens when the process has ended."""
        self._call({"op": "signal", "id": process_id, "signal": int(number)})

    def remove(self, process_id: str, *, force: bool = False) -> None:
        """Forget an exited process and delete its root; force kills a running one first. Idempotent."""
        self._call({"op": "remove", "id": process_id, "force": force})

    def resize(self, process_id: str, rows: int, columns: int) -> None:
        """Set the window size of the process's terminal."""
        self._call({"op": "resize", "id": process_id, "rows": rows, "columns": columns})

    def attach(
        self, process_id: str, *, stdin: int | None = None, stdout: int | None = None, stderr: int | None = None
    ) -> None:
        """Copy the live streams of a logged or tty process to these pipes or sockets, and stdin to it.

        The fork server closes its ends when the process has ended; closing yours detaches.
        """
        given = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
        named = {name: fd for name, fd in given.items() if fd is not None}
        self._call({"op": "attach", "id": process_id, "fds": list(named)}, list(named.values()))

    def subscribe(self, labels: Mapping[str, str] | None = None) -> Iterator[Process]:
        """Processes carrying these labels as they end, for ever; only later exits are told."""
        self._call({"op": "subscribe", "labels": dict(labels or {})})
        while True:
            while self._events:
                yield self._events.pop(0)
            self._socket.settimeout(None)
            self._receive()

    def run(
        self,
        spec: ProcessSpec,
        *,
        stdin: bytes = b"",
        timeout: float | None = None,
        fds: Mapping[int, int] | None = None,
    ) -> Completed:
        """Start, feed stdin, collect stdout and stderr, wait, remove. TimeoutError kills the process."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with ExitStack() as stack:
            ends = [os.pipe() for _ in range(3)]
            theirs = [ends[0][0], ends[1][1], ends[2][1]]
            # A file, for it is closed when fed: a number closed twice may by then be another thread's descriptor.
            feed = stack.enter_context(os.fdopen(ends[0][1], "wb", buffering=0))
            for fd in (ends[1][0], ends[2][0]):
                stack.callback(os.close, fd)
            try:
                process = self.spawn(spec, stdin=theirs[0], stdout=theirs[1], stderr=theirs[2], fds=fds)
            finally:
                for fd in theirs:
                    os.close(fd)
            try:
                stdout, stderr = _communicate(feed, ends[1][0], ends[2][0], stdin, deadline)
                left = None if deadline is None else max(deadline - time.monotonic(), 0.001)
                status = self.wait(process.id, left)
            finally:
                self.remove(process.id, force=True)
        return Completed(status, stdout, stderr)

    def _call(
        self, message: dict[str, Any], fds: Sequence[int] = (), *, timeout: float | None = None, bounded: bool = True
    ) -> Any:
        self._number += 1
        number = self._number
        deadline = None
        if bounded or timeout is not None:
            deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        self._socket.settimeout(self._timeout)
        try:
            wire.send(self._socket, wire.encode({**message, "n": number}), fds)
            while number not in self._replies:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError(f"{message['op']} {message.get('id', '')}: no answer in time")
                self._socket.settimeout(left)
                self._receive()
        except TimeoutError:
            raise TimeoutError(f"{message['op']} {message.get('id', '')}: no answer in time") from None
        except OSError as err:
            raise Disconnected(f"fork server at {self._path}: {err.strerror}") from err
        return result_of(self._replies.pop(number))

    def _receive(self) -> None:
        data, fds = wire.receive_once(self._socket)
        if not data:
            raise Disconnected(f"fork server at {self._path} closed the connection")
        for message, _ in self._reader.feed(data, fds):
            if "event" in message:
                self._events.append(process_from_json(message["process"]))
            else:
                self._replies[message["n"]] = message
        # A late answer to a call that timed out is never asked for again.
        while len(self._replies) > 64:
            self._replies.pop(next(iter(self._replies)))


def _communicate(feed: FileIO, stdout: int, stderr: int, data: bytes, deadline: float | None) -> tuple[bytes, bytes]:
    """Feed data to stdin and read stdout and stderr until both are closed; stdin is closed when fed."""
    collected: dict[int, bytearray] = {stdout: bytearray(), stderr: bytearray()}
    stdin = feed.fileno()
    rest = memoryview(data)
    os.set_blocking(stdin, False)
    with selectors.DefaultSelector() as selector:
        selector.register(stdout, selectors.EVENT_READ)
        selector.register(stderr, selectors.EVENT_READ)
        if rest:
            selector.register(stdin, selectors.EVENT_WRITE)
        else:
            feed.close()
        while selector.get_map():
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError("the process did not end in time")
            for key, _ in selector.select(left):
                if key.fd == stdin:
                    try:
                        rest = rest[os.write(stdin, rest[: 64 * 1024]) :]
                    except BrokenPipeError:
                        rest = rest[:0]
                    if not rest:
                        selector.unregister(stdin)
                        feed.close()
                elif chunk := os.read(key.fd, 64 * 1024):
                    collected[key.fd] += chunk
                else:
                    selector.unregister(key.fd)
    return bytes(collected[stdout]), bytes(collected[stderr])


def start_server(command: Sequence[str], socket_path: Path, *, timeout: float = 10.0) -> subprocess.Popen[bytes]:
    """Start the fork server as a child and wait until its socket answers (tests, tools)."""
    server = subprocess.Popen(command)
    deadline = time.monotonic() + timeout
    while True:
        try:
            RuntimeClient(socket_path).close()
            return server
        except Disconnected:
            if server.poll() is not None or time.monotonic() > deadline:
                server.kill()
                raise
            time.sleep(0.005)
