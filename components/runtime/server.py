"""The fork server: clients on a unix socket, the table of processes, and the two forking parents.

A lab starts hundreds of Python processes, and starting Python and importing libraries costs up to
100 ms and 10 MiB for each. The fork server pays that once. Two processes, the forking parents,
import the modules and then only fork (zygote.py); their children share that memory. The server
itself never forks, because it has sockets, logs and tables that no child should inherit.

A spawn goes through three processes:

    client            sends the spec, with descriptors by SCM_RIGHTS (unix(7))
    server            opens namespaces and log, writes the spec to a memfd, sends it to a parent
    forking parent    forks; the child reads the memfd and becomes the program (child.py)

The server then learns two things, in any order: the pid from the parent, and the result of the
set-up over the child's status socket. It answers the client when it has both (_started()), so that
a client which has an answer can signal the process or join its namespaces.

These rules hold:

- Nothing blocks. There is a single loop for all clients and all containers, and a client that does
  not read must not stop any other (loop.py, peers.py, streams.py).
- An error of a client ends that client, and an error of a process that process.
- Each descriptor has exactly one owner at any time. What a handler keeps, it takes out of the
  request's dictionary; the rest is closed.
- A process stays in the table with its exit status until remove(), so that a kubelet which was
  restarted can still learn how it ended. This corresponds to CRI's StopContainer and
  RemoveContainer.
- Messages to and from the parents identify a process by a serial number. The kernel may reuse a pid
  as soon as the parent has reaped the process, so only the parent signals processes (zygote.py).
- No process outlives the server: each has PR_SET_PDEATHSIG, and the parents end with their
  channel.
"""

# pathlib is not used, because importing it would cost memory in every container.
# ruff: noqa: PTH119
from __future__ import annotations

import functools
import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from . import child, wire, zygote
from .cri_log import LogFile
from .loop import Loop
from .peers import Connection, Parent
from .rootfs import Layout
from .spec import (
    NAMESPACE_NAMES,
    ExitStatus,
    InvalidRequest,
    InvalidSpec,
    Process,
    ProcessSpec,
    RuntimeApiError,
    StartError,
    UnknownProcess,
    check,
    spec_from_json,
    to_json,
)
from .streams import Streams

Answer = Callable[[dict[str, Any]], None]
Field = TypeVar("Field")
MAX_CONNECTIONS = 1024
#: The names of descriptors from a client: streams, the log's directory, namespaces, and those of
#: the process's own descriptors.
DESCRIPTORS = frozenset(
    (
        "stdin",
        "stdout",
        "stderr",
        "log",
        *(f"ns:{name}" for name in NAMESPACE_NAMES),
        *(f"fd:{n}" for n in range(3, 32)),
    )
)


@dataclass
class _Record:
    """A process from the spawn request to remove()."""

    process: Process
    spec: ProcessSpec
    serial: int
    parent: Parent
    streams: Streams | None = None
    status: socket.socket | None = None
    status_text: bytes = b""
    spawn_answer: Answer | None = None
    owner: Connection | None = None
    remove_at_exit: bool = False
    waiting: list[Answer] = field(default_factory=list)


def inherit(spec: ProcessSpec, container: ProcessSpec) -> ProcessSpec:
    """The spec of an exec; env, cwd, user and capabilities default to those of the container."""
    env = spec.env
    if env is None and container.env is not None:
        env = {**container.env, **container.add_env}
    elif env is None:
        spec = replace(spec, add_env={**container.add_env, **spec.add_env})
    same_user = spec.user is None
    return replace(
        spec,
        env=env,
        cwd=spec.cwd or container.cwd,
        user=container.user if same_user else spec.user,
        group=container.group if same_user and spec.group is None else spec.group,
        groups=container.groups if same_user and not spec.groups else spec.groups,
        capabilities=container.capabilities if spec.capabilities is None else spec.capabilities,
        no_new_privileges=spec.no_new_privileges or container.no_new_privileges,
    )


class Server:
    """The server. parents: value of `preload` -> this end of that forking parent's channel."""

    def __init__(
        self,
        loop: Loop,
        listeners: Sequence[socket.socket],
        parents: Mapping[str, socket.socket],
        layout: Layout,
    ) -> None:
        self.loop = loop
        self._layout = layout
        self._records: dict[str, _Record] = {}
        self._serials: dict[int, _Record] = {}
        self._next_serial = 0
        self._connections: list[Connection] = []
        self._warned: set[str] = set()
        self.failed = ""
        self._parents = {name: Parent(self, name, channel) for name, channel in parents.items()}
        for listener in listeners:
            listener.setblocking(False)
            loop.set_reader(listener.fileno(), functools.partial(self._accept, listener))

    def request(self, connection: Connection, message: dict[str, Any], fds: list[int]) -> None:
        """Handles a request; the answer may come later. Raises BadFrame if none can be given."""
        handler: Callable[[Connection, dict[str, Any], dict[str, int], Answer], None] | None
        owned = dict(zip(message.get("fds", ()), fds, strict=True))
        try:
            number = message.get("n")
            if not isinstance(number, int):
                raise wire.BadFrame("n: the number of the request is missing")

            def answer(body: dict[str, Any]) -> None:
                connection.send({"n": number, **body})

            handler = getattr(self, f"_on_{message.get('op')}", None)
            if handler is None:
                raise RuntimeApiError(f"unknown operation {message.get('op')!r}")
            if unknown := [name for name in owned if name not in DESCRIPTORS]:
                raise InvalidRequest(f"fds: unknown names {unknown}")
            handler(connection, message, owned, answer)
        except RuntimeApiError as err:
            answer(_error(err))
        except OSError as err:
            answer(_error(StartError(str(err), "runtime", err.errno or 0)))
        finally:
            # Handlers take what they keep out of `owned`.
            wire.close_all(owned.values())

    def disconnected(self, connection: Connection) -> None:
        self._connections.remove(connection)
        for record in list(self._records.values()):
            if record.owner is connection:
                self._remove(record)

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        now = time.monotonic()
        for connection in list(self._connections):
            if connection.is_stale(now):
                connection.close()
        if len(self._connections) >= MAX_CONNECTIONS:
            text = f"runtime: more than {MAX_CONNECTIONS} clients: one is refused"
            print(text, file=sys.stderr, flush=True)
            sock.close()
            return
        try:
            self._connections.append(Connection(self, sock))
        except Exception:  # the listening socket must go on serving other clients
            print(f"runtime: a client: {traceback.format_exc()}", file=sys.stderr, flush=True)
            sock.close()

    def _record(self, message: dict[str, Any]) -> _Record:
        process_id = _field(message, "id", str)
        record = self._records.get(process_id)
        if record is None or record.spawn_answer is not None:
            raise UnknownProcess(f"process {process_id!r} does not exist")
        return record

    def _on_get(
        self,
        _c: Connection,
        message: dict[str, Any],
        _f: dict[str, int],
        answer: Answer,
    ) -> None:
        answer({"result": to_json(self._record(message).process)})

    def _on_list(
        self,
        _c: Connection,
        message: dict[str, Any],
        _f: dict[str, int],
        answer: Answer,
    ) -> None:
        records = self._records.values()
        processes = [record.process for record in records if record.spawn_answer is None]
        labels = _field(message, "labels", dict)
        answer({"result": [to_json(item) for item in processes if _carries(item, labels)]})

    def _on_wait(
        self,
        _c: Connection,
        message: dict[str, Any],
        _f: dict[str, int],
        answer: Answer,
    ) -> None:
        record = self._record(message)
        if record.process.exit is None:
            record.waiting.append(answer)
        else:
            answer({"result": to_json(record.process)})

    def _on_signal(
        self,
        _c: Connection,
        message: dict[str, Any],
        _f: dict[str, int],
        answer: Answer,
    ) -> None:
        record = self._record(message)
        number = _field(message, "signal", int)
        if not 0 < number < signal.NSIG:
            raise RuntimeApiError(f"signal {number}: no such signal")
        if record.process.exit is None:
            record.parent.send(b"K", record.serial, number)
        answer({"result": None})

    def _on_remove(
        self,
        _c: Connection,
        message: dict[str, Any],
        _f: dict[str, int],
        answer: Answer,
    ) -> None:
        record = self._records.get(_field(message, "id", str))
        if record is not None and record.process.exit is None:
            if not message.get("force"):
                text = f"process {message['id']!r} is running: stop it first, or force"
                raise RuntimeApiError(text)
            record.waiting.append(lambda _body: answer({"result": None}))
            self._remove(record)
            return
        if record is not None:
            self._remove(record)
        answer({"result": None})

    def _on_resize(
        self,
        _c: Connection,
        message: dict[str, Any],
        _f: dict[str, int],
        answer: Answer,
    ) -> None:
        if (streams := self._record(message).streams) is not None:
            rows = _field(message, "rows", int)
            columns = _field(message, "columns", int)
            if not (0 <= rows <= 65535 and 0 <= columns <= 65535):
                raise InvalidRequest(f"rows, columns: {rows}x{columns} is not from 0 to 65535")
            streams.resize(rows, columns)
        answer({"result": None})

    def _on_attach(
        self,
        _c: Connection,
        message: dict[str, Any],
        fds: dict[str, int],
        answer: Answer,
    ) -> None:
        record = self._record(message)
        if record.streams is None:
            text = f"process {message['id']!r} has no streams to attach to"
            raise RuntimeApiError(f"{text}: started without log or tty")
        ended = record.process.exit is not None
        if ended and not record.spec.stdin_once:
            # As containerd: a client that got an empty stream would not look into the log. The
            # output of one with stdin_once is kept for its first client.
            raise RuntimeApiError(f"process {message['id']!r} has ended")
        taken = {name: fds.pop(name, None) for name in ("stdin", "stdout", "stderr")}
        if ended and taken["stdin"] is not None:
            os.close(taken["stdin"])
            taken["stdin"] = None
        record.streams.attach(taken["stdin"], taken["stdout"], taken["stderr"])
        answer({"result": None})

    def _on_subscribe(
        self,
        c: Connection,
        message: dict[str, Any],
        _f: dict[str, int],
        answer: Answer,
    ) -> None:
        c.subscriptions.append(_field(message, "labels", dict))
        answer({"result": None})

    def _on_spawn(
        self,
        c: Connection,
        message: dict[str, Any],
        fds: dict[str, int],
        answer: Answer,
    ) -> None:
        spec = spec_from_json(message.get("spec"))
        check(spec)
        opened = {name: fds.pop(name) for name in list(fds)}
        streams: Streams | None = None
        attached: dict[str, int] = {}
        try:
            if spec.container:
                spec = self._join_container(spec, opened)
            else:
                _open_namespaces(spec.join, opened)
            streams, attached = self._make_streams(spec, opened)
            payload, server_end, descriptors, pid_mode = self._package(spec, opened)
        except BaseException:
            wire.close_all([*opened.values(), *attached.values()])
            if streams is not None:
                streams.close()
            raise
        self._next_serial += 1
        record = _Record(
            process=Process(
                os.urandom(32).hex(),
                0,
                spec.name,
                dict(spec.labels),
                time.time(),
                spec.log_path,
            ),
            spec=spec,
            serial=self._next_serial,
            parent=self._parents[spec.preload],
            streams=streams,
            status=server_end,
            spawn_answer=answer,
            owner=c if spec.kill_on_disconnect else None,
        )
        if streams is not None and attached:
            streams.attach(attached.get("stdin"), attached.get("stdout"), attached.get("stderr"))
        self._records[record.process.id] = record
        self._serials[record.serial] = record
        self.loop.set_reader(server_end.fileno(), lambda: self._read_status(record))
        kind = b"B" if child.to_be_built(spec) else b"S"
        record.parent.send(kind, record.serial, pid_mode, [payload, *descriptors])

    def _join_container(self, spec: ProcessSpec, opened: dict[str, int]) -> ProcessSpec:
        container = self._records.get(spec.container)
        if container is None or container.spawn_answer is not None:
            raise UnknownProcess(f"container {spec.container!r} does not exist")
        if container.process.exit is not None:
            raise StartError("cannot exec in a stopped container", "container")
        names = [name for name in NAMESPACE_NAMES if name != "user"]
        try:
            _open_namespaces(dict.fromkeys(names, container.process.pid), opened)
        except StartError as err:
            # The container has ended, but the parent's message has not arrived yet.
            raise StartError("cannot exec in a stopped container", "container", err.errno) from None
        return inherit(spec, container.spec)

    def _make_streams(
        self,
        spec: ProcessSpec,
        opened: dict[str, int],
    ) -> tuple[Streams | None, dict[str, int]]:
        """Makes the streams that the server copies, if any.

        Returns them and the client's descriptors to attach to them, which are taken out of opened.
        """
        directory = opened.pop("log", None)
        if directory is None and spec.tty is None and not spec.stdin_open:
            return None, {}
        log = None
        if directory is not None:
            name = os.path.basename(spec.log_path)
            if not name:
                os.close(directory)
                raise InvalidSpec("log_path: names no file")
            log = LogFile(directory, name, spec.log_max_bytes, spec.log_max_files)
        names = [name for name in ("stdin", "stdout", "stderr") if name in opened]
        attached: dict[str, int] = {name: opened.pop(name) for name in names}
        if spec.tty is not None:
            return Streams(self.loop, log=log, stdin_once=spec.stdin_once, tty=True), attached
        stdin = None
        if spec.stdin_open:
            opened["stdin"], stdin = os.pipe2(os.O_CLOEXEC)
        elif "stdin" in attached:
            opened["stdin"] = attached.pop("stdin")
        streams = Streams(self.loop, log=log, stdin=stdin, stdin_once=spec.stdin_once)
        for name in ("stdout", "stderr"):
            reader, opened[name] = os.pipe2(os.O_CLOEXEC)
            streams.add_output(name, reader)
        return streams, attached

    def _package(
        self,
        spec: ProcessSpec,
        opened: dict[str, int],
    ) -> tuple[int, socket.socket, list[int], int]:
        pid_mode = zygote.PID_NEW if "pid" in spec.unshare else zygote.PID_SAME
        names = list(opened)
        if "ns:pid" in opened:
            # The forking parent expects it as the first of these descriptors.
            pid_mode = zygote.PID_JOIN
            names.sort(key=lambda name: name != "ns:pid")
        payload = os.memfd_create("spec", os.MFD_CLOEXEC)
        os.write(payload, child.payload_json(to_json(spec), names, self._layout))
        os.lseek(payload, 0, os.SEEK_SET)
        server_end, child_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        server_end.setblocking(False)
        return (
            payload,
            server_end,
            [child_end.detach(), *(opened[name] for name in names)],
            pid_mode,
        )

    def _read_status(self, record: _Record) -> None:
        assert record.status is not None
        try:
            data, fds = wire.receive_once(record.status)
        except BlockingIOError:
            return
        except OSError:
            data = b""
            fds = []
        for fd in fds:
            assert record.streams is not None
            record.streams.set_terminal(fd)
        record.status_text += data
        if not data:
            self.loop.forget(record.status.fileno())
            record.status.close()
            record.status = None
            self._started(record)

    def _started(self, record: _Record) -> None:
        """Answers the spawn once both the pid and the result of the set-up are known."""
        if record.spawn_answer is None or record.status is not None or not record.process.pid:
            return
        error = None
        for line in record.status_text.splitlines():
            report = _report(line)
            error = report.get("error", error)
            if (warning := report.get("warning")) and warning not in self._warned:
                self._warned.add(warning)
                print(f"runtime: {warning}", file=sys.stderr, flush=True)
        if error is None:
            record.status_text = b""
            answer = record.spawn_answer
            record.spawn_answer = None
            answer({"result": to_json(record.process)})
        elif record.process.exit is not None:
            # The client is told only after the exit, so that the process is gone by then.
            answer = record.spawn_answer
            record.spawn_answer = None
            answer(_error(StartError(error["message"], error["stage"], error["errno"])))
            record.remove_at_exit = True
            self._forget(record)

    def parent_told(self, kind: bytes, serial: int, value: int) -> None:
        record = self._serials.get(serial)
        if record is None:
            return
        if kind == b"P":
            record.process = replace(record.process, pid=value)
            self._started(record)
        elif kind == b"E":
            answer = record.spawn_answer
            record.spawn_answer = None
            if answer is not None:
                answer(_error(StartError(f"fork: {os.strerror(value)}", "fork", value)))
            self._forget(record)
        elif kind == b"X":
            self._exited(record, value)

    def parent_died(self, name: str) -> None:
        self.failed = f"the {name} forking parent died; its processes died with it"
        self.loop.stop()

    def _exited(self, record: _Record, wait_status: int) -> None:
        while record.status is not None:
            # The process has ended, so all its reports are in the socket.
            self._read_status(record)
        code = os.waitstatus_to_exitcode(wait_status)
        status = ExitStatus(max(code, 0), max(-code, 0), time.time())
        if record.streams is not None:
            record.streams.finish()
        record.process = replace(record.process, exit=status)
        self._started(record)
        body = {"result": to_json(record.process)}
        waiting = record.waiting
        record.waiting = []
        if record.remove_at_exit:
            self._forget(record)
        for answer in waiting:
            answer(body)
        if record.spawn_answer is None and not record.remove_at_exit:
            for connection in list(self._connections):
                if any(_carries(record.process, labels) for labels in connection.subscriptions):
                    connection.send({"event": "exit", "process": body["result"]})

    def _remove(self, record: _Record) -> None:
        if record.process.exit is not None:
            self._forget(record)
            return
        record.remove_at_exit = True
        record.parent.send(b"G", record.serial, signal.SIGKILL)

    def _forget(self, record: _Record) -> None:
        self._records.pop(record.process.id, None)
        self._serials.pop(record.serial, None)
        if record.status is not None:
            self.loop.forget(record.status.fileno())
            record.status.close()
            record.status = None
        if record.streams is not None:
            record.streams.close()
            record.streams = None

    def kill_all(self, timeout: float = 5.0) -> None:
        """Kills all processes; waits until they are reaped, or timeout seconds without an event."""
        for record in list(self._records.values()):
            self._remove(record)
        self.loop.run(until=lambda: not self._records, timeout=timeout)


def _open_namespaces(join: Mapping[str, int | str], opened: dict[str, int]) -> None:
    """Opens /proc/PID/ns/NAME for each namespace to join. Raises StartError.

    A namespace that this process is in is left out: setns(2) would need rights over it that a user
    namespace does not give.
    """
    for name, pid in join.items():
        try:
            fd = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as err:
            message = f"join {name} namespace of pid {pid}: {err.strerror}"
            raise StartError(message, f"join {name}", err.errno or 0) from None
        if os.path.sameopenfile(fd, _own_namespace(name)):
            os.close(fd)
        else:
            opened[f"ns:{name}"] = fd


@functools.cache
def _own_namespace(name: str) -> int:
    return os.open(f"/proc/self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)


def _field(message: Mapping[str, Any], key: str, kind: type[Field]) -> Field:
    """A field of a request, checked for its type. Raises InvalidRequest."""
    value = message.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InvalidRequest(f"{key}: a {kind.__name__} is wanted, not {value!r:.40}")
    return value


def _report(line: bytes) -> dict[str, Any]:
    """A child's report about its set-up. Anything malformed counts as an error."""
    try:
        report = json.loads(line)
    except (ValueError, RecursionError):
        report = None
    if isinstance(report, dict):
        return report
    message = f"the set-up said {line[:100]!r}"
    return {"error": {"message": message, "stage": "start", "errno": 0}}


def _carries(process: Process, labels: Mapping[str, str]) -> bool:
    return all(process.labels.get(key) == value for key, value in labels.items())


def _error(err: RuntimeApiError) -> dict[str, Any]:
    body: dict[str, Any] = {"kind": type(err).__name__, "message": str(err)}
    if isinstance(err, StartError):
        body |= {"stage": err.stage, "errno": err.errno}
    return {"error": body}
