"""The blocking client of the fork server, for the lab's bring-up, the CLI and tests."""

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
    """Returns the spawn message and its descriptors.

    stack closes the descriptors that are opened here (namespaces, log directory). Raises
    InvalidSpec, or OSError if a namespace path or the log directory cannot be opened.
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
            opened = os.open(where, os.O_RDONLY | os.O_CLOEXEC)
            named[f"ns:{name}"] = opened
            stack.callback(os.close, opened)
    if spec.log_path:
        directory = os.path.dirname(spec.log_path) or "."  # noqa: PTH120 (avoids importing pathlib)
        opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        named["log"] = opened
        stack.callback(os.close, opened)
    body = to_json(spec)
    body["join"] = join
    return {"op": "spawn", "spec": body, "fds": list(named)}, list(named.values())


def result_of(reply: dict[str, Any]) -> Any:
    """Returns the result of a reply, or raises its error."""
    error = reply.get("error")
    if error is None:
        return reply.get("result")
    kind = error["kind"]
    message = error["message"]
    if kind == "StartError":
        raise StartError(message, error.get("stage", ""), error.get("errno", 0))
    known = {
        "InvalidRequest": InvalidRequest,
        "InvalidSpec": InvalidSpec,
        "UnknownProcess": UnknownProcess,
    }
    raise known.get(kind, RuntimeApiError)(message)


class RuntimeClient:
    """A blocking connection. Several threads must not use it at the same time.

    Every method raises Disconnected if the fork server goes away, and UnknownProcess for an id that
    it does not know.
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
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
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
        """Starts a process; returns once its program runs (exec is done, or main is about to be
        called).

        stdin, stdout, stderr: descriptors for the process (None: /dev/null, or the log). The
        caller still owns and closes its own. fds: number in the process -> descriptor here. Raises
        StartError or InvalidSpec.
        """
        with ExitStack() as stack:
            message, descriptors = spawn_request(spec, stdin, stdout, stderr, fds or {}, stack)
            return process_from_json(self._call(message, descriptors))

    def get(self, process_id: str) -> Process:
        return process_from_json(self._call({"op": "get", "id": process_id}))

    def list(self, labels: Mapping[str, str] | None = None) -> list[Process]:
        """The processes with all these labels, oldest first, including those that have exited."""
        bodies = self._call({"op": "list", "labels": dict(labels or {})})
        return [process_from_json(body) for body in bodies]

    def wait(self, process_id: str, timeout: float | None = None) -> ExitStatus:
        """Waits until the process has ended. Raises TimeoutError after timeout seconds, if set."""
        message = {"op": "wait", "id": process_id}
        process = process_from_json(self._call(message, timeout=timeout, bounded=False))
        assert process.exit is not None
        return process.exit

    def signal(self, process_id: str, number: int) -> None:
        """Sends a signal; does nothing if the process has ended."""
        self._call({"op": "signal", "id": process_id, "signal": int(number)})

    def remove(self, process_id: str, *, force: bool = False) -> None:
        """Forgets an exited process; force: kills a running one first. Idempotent."""
        self._call({"op": "remove", "id": process_id, "force": force})

    def resize(self, process_id: str, rows: int, columns: int) -> None:
        """Sets the size of the process's terminal."""
        self._call({"op": "resize", "id": process_id, "rows": rows, "columns": columns})

    def attach(
        self,
        process_id: str,
        *,
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
    ) -> None:
        """Connects pipes or sockets to the streams of a process with a log, a terminal or open
        stdin.

        The fork server closes its ends when the process ends. The caller closes its own to detach.
        Raises RuntimeApiError if the process has ended, unless its output is kept (stdin_once).
        """
        given = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
        named = {name: fd for name, fd in given.items() if fd is not None}
        self._call({"op": "attach", "id": process_id, "fds": list(named)}, list(named.values()))

    def subscribe(self, labels: Mapping[str, str] | None = None) -> Iterator[Process]:
        """Yields the processes with these labels that end from now on, without end."""
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
        """Runs a process to its end: feeds stdin, collects stdout and stderr, waits, removes it.

        The process is killed on TimeoutError.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with ExitStack() as stack:
            ends = [os.pipe() for _ in range(3)]
            process_ends = [ends[0][0], ends[1][1], ends[2][1]]
            # A file object, because it is closed as soon as all is written, and again by the stack.
            # Closing a descriptor number twice could close another thread's descriptor.
            feed = stack.enter_context(os.fdopen(ends[0][1], "wb", buffering=0))
            for fd in (ends[1][0], ends[2][0]):
                stack.callback(os.close, fd)
            try:
                process = self.spawn(
                    spec,
                    stdin=process_ends[0],
                    stdout=process_ends[1],
                    stderr=process_ends[2],
                    fds=fds,
                )
            finally:
                for fd in process_ends:
                    os.close(fd)
            try:
                stdout, stderr = _communicate(feed, ends[1][0], ends[2][0], stdin, deadline)
                left = None if deadline is None else max(deadline - time.monotonic(), 0.001)
                status = self.wait(process.id, left)
            finally:
                self.remove(process.id, force=True)
        return Completed(status, stdout, stderr)

    def _call(
        self,
        message: dict[str, Any],
        fds: Sequence[int] = (),
        *,
        timeout: float | None = None,
        bounded: bool = True,
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
                    raise TimeoutError(
                        f"{message['op']} {message.get('id', '')}: no answer in time",
                    )
                self._socket.settimeout(left)
                self._receive()
        except TimeoutError:
            raise TimeoutError(
                f"{message['op']} {message.get('id', '')}: no answer in time",
            ) from None
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
        # Late answers to calls that have timed out are never fetched; drop the oldest ones.
        while len(self._replies) > 64:
            self._replies.pop(next(iter(self._replies)))


def _communicate(
    feed: FileIO,
    stdout: int,
    stderr: int,
    data: bytes,
    deadline: float | None,
) -> tuple[bytes, bytes]:
    """Writes data to stdin and closes it, and reads stdout and stderr until both have ended."""
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


def start_server(
    command: Sequence[str],
    socket_path: Path,
    *,
    timeout: float = 10.0,
) -> subprocess.Popen[bytes]:
    """Starts the fork server as a child and waits until its socket answers, for tests and tools."""
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
