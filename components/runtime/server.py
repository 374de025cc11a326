"""The fork server proper: clients on a unix socket, the table of processes, the two forking parents."""

# pathlib would cost every container memory; paths here are the kernel's strings.
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
#: What a client may hand over: streams, the log's directory, namespaces, the process's own descriptors.
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
    """The spec of an exec: what it does not say is as in the container (env, cwd, user, capabilities)."""
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
    )


class Server:
    """Serve until SIGTERM. `parents` maps preload -> our end of the channel to that forking parent."""

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

    # Clients

    def request(self, connection: Connection, message: dict[str, Any], fds: list[int]) -> None:
        """One request; its answer may come later. Raises BadFrame when no answer can be given."""
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
        for connection in [one for one in self._connections if one.is_stale(now)]:
            connection.close()
        if len(self._connections) >= MAX_CONNECTIONS:
            print(f"runtime: more than {MAX_CONNECTIONS} clients: one is refused", file=sys.stderr, flush=True)
            sock.close()
            return
        try:
            self._connections.append(Connection(self, sock))
        except Exception:  # the listening socket is everyone's
            print(f"runtime: a client: {traceback.format_exc()}", file=sys.stderr, flush=True)
            sock.close()

    def _record(self, message: dict[str, Any]) -> _Record:
        process_id = _field(message, "id", str)
        record = self._records.get(process_id)
        if record is None or record.spawn_answer is not None:
            raise UnknownProcess(f"process {process_id!r} does not exist")
        return record

    def _on_get(self, _c: Connection, message: dict[str, Any], _f: dict[str, int], answer: Answer) -> None:
        answer({"result": to_json(self._record(message).process)})

    def _on_list(self, _c: Connection, message: dict[str, Any], _f: dict[str, int], answer: Answer) -> None:
        found = [r.process for r in self._records.values() if r.spawn_answer is None]
        labels = _field(message, "labels", dict)
        answer({"result": [to_json(p) for p in found if _carries(p, labels)]})

    def _on_wait(self, _c: Connection, message: dict[str, Any], _f: dict[str, int], answer: Answer) -> None:
        record = self._record(message)
        if record.process.exit is None:
            record.waiting.append(answer)
        else:
            answer({"result": to_json(record.process)})

    def _on_signal(self, _c: Connection, message: dict[str, Any], _f: dict[str, int], answer: Answer) -> None:
        record = self._record(message)
        number = _field(message, "signal", int)
        if not 0 < number < signal.NSIG:
            raise RuntimeApiError(f"signal {number}: no such signal")
        if record.process.exit is None:
            record.parent.send(b"K", record.serial, number)
        answer({"result": None})

    def _on_remove(self, _c: Connection, message: dict[str, Any], _f: dict[str, int], answer: Answer) -> None:
        record = self._records.get(_field(message, "id", str))
        if record is not None and record.process.exit is None:
            if not message.get("force"):
                raise RuntimeApiError(f"process {message['id']!r} is running: stop it first, or force")
            record.waiting.append(lambda _body: answer({"result": None}))
            self._remove(record)
            return
        if record is not None:
            self._remove(record)
        answer({"result": None})

    def _on_resize(self, _c: Connection, message: dict[str, Any], _f: dict[str, int], answer: Answer) -> None:
        if (streams := self._record(message).streams) is not None:
            rows, columns = _field(message, "rows", int), _field(message, "columns", int)
            if not (0 <= rows <= 65535 and 0 <= columns <= 65535):
                raise InvalidRequest(f"rows, columns: {rows}x{columns} is not from 0 to 65535")
            streams.resize(rows, columns)
        answer({"result": None})

    def _on_attach(self, _c: Connection, message: dict[str, Any], fds: dict[str, int], answer: Answer) -> None:
        record = self._record(message)
        if record.streams is None:
            raise RuntimeApiError(f"process {message['id']!r} has no streams to attach to: started without log or tty")
        taken = {name: fds.pop(name, None) for name in ("stdin", "stdout", "stderr")}
        if record.process.exit is not None and taken["stdin"] is not None:
            os.close(taken["stdin"])
            taken["stdin"] = None
        record.streams.attach(taken["stdin"], taken["stdout"], taken["stderr"])
        answer({"result": None})

    def _on_subscribe(self, c: Connection, message: dict[str, Any], _f: dict[str, int], answer: Answer) -> None:
        c.subscriptions.append(_field(message, "labels", dict))
        answer({"result": None})

    # Starting

    def _on_spawn(self, c: Connection, message: dict[str, Any], fds: dict[str, int], answer: Answer) -> None:
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
            # asdict once more: the spec may have inherited from its container.
            payload, ours, descriptors, pid_mode = self._package(spec, opened)
        except BaseException:
            wire.close_all([*opened.values(), *attached.values()])
            if streams is not None:
                streams.close()
            raise
        self._next_serial += 1
        record = _Record(
            process=Process(os.urandom(32).hex(), 0, spec.name, dict(spec.labels), time.time(), spec.log_path),
            spec=spec,
            serial=self._next_serial,
            parent=self._parents[spec.preload],
            streams=streams,
            status=ours,
            spawn_answer=answer,
            owner=c if spec.kill_on_disconnect else None,
        )
        if streams is not None and attached:
            streams.attach(attached.get("stdin"), attached.get("stdout"), attached.get("stderr"))
        self._records[record.process.id] = self._serials[record.serial] = record
        self.loop.set_reader(ours.fileno(), lambda: self._read_status(record))
        record.parent.send(b"B" if child.to_be_built(spec) else b"S", record.serial, pid_mode, [payload, *descriptors])

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
            # It has ended, and we have not been told yet.
            raise StartError("cannot exec in a stopped container", "container", err.errno) from None
        return inherit(spec, container.spec)

    def _make_streams(self, spec: ProcessSpec, opened: dict[str, int]) -> tuple[Streams | None, dict[str, int]]:
        """The streams that we copy, and those of the client to attach to them (taken out of opened)."""
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
        attached: dict[str, int] = {n: opened.pop(n) for n in ("stdin", "stdout", "stderr") if n in opened}
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

    def _package(self, spec: ProcessSpec, opened: dict[str, int]) -> tuple[int, socket.socket, list[int], int]:
        pid_mode = zygote.PID_NEW if "pid" in spec.unshare else zygote.PID_SAME
        names = list(opened)
        if "ns:pid" in opened:
            # The forking parent looks for it in the first place.
            pid_mode = zygote.PID_JOIN
            names.sort(key=lambda name: name != "ns:pid")
        payload = os.memfd_create("spec", os.MFD_CLOEXEC)
        os.write(payload, child.payload_json(to_json(spec), names, self._layout))
        os.lseek(payload, 0, os.SEEK_SET)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        return payload, ours, [theirs.detach(), *(opened[name] for name in names)], pid_mode

    def _read_status(self, record: _Record) -> None:
        assert record.status is not None
        try:
            data, fds = wire.receive_once(record.status)
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
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
        """Answer the spawn once both the pid and the end of the set-up are known."""
        if record.spawn_answer is None or record.status is not None or not record.process.pid:
            return
        error = None
        for line in record.status_text.splitlines():
            told = _told(line)
            error = told.get("error", error)
            if (warning := told.get("warning")) and warning not in self._warned:
                self._warned.add(warning)
                print(f"runtime: {warning}", file=sys.stderr, flush=True)
        if error is None:
            record.status_text = b""
            answer, record.spawn_answer = record.spawn_answer, None
            answer({"result": to_json(record.process)})
        elif record.process.exit is not None:
            # Told only now, so that nothing of it is left when the client hears of it.
            answer, record.spawn_answer = record.spawn_answer, None
            answer(_error(StartError(error["message"], error["stage"], error["errno"])))
            record.remove_at_exit = True
            self._forget(record)

    # Forking parents

    def parent_told(self, kind: bytes, serial: int, value: int) -> None:
        record = self._serials.get(serial)
        if record is None:
            return
        if kind == b"P":
            record.process = replace(record.process, pid=value)
            self._started(record)
        elif kind == b"E":
            answer, record.spawn_answer = record.spawn_answer, None
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
            # The set-up's last words are in the socket already.
            self._read_status(record)
        code = os.waitstatus_to_exitcode(wait_status)
        status = ExitStatus(max(code, 0), max(-code, 0), time.time())
        if record.streams is not None:
            record.streams.finish()
        record.process = replace(record.process, exit=status)
        self._started(record)
        body = {"result": to_json(record.process)}
        waiting, record.waiting = record.waiting, []
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
        """SIGKILL every process and wait until all are reaped, each step at most timeout seconds."""
        for record in list(self._records.values()):
            self._remove(record)
        self.loop.run(until=lambda: not self._records, timeout=timeout)


def _open_namespaces(join: Mapping[str, int | str], opened: dict[str, int]) -> None:
    """Open /proc/PID/ns/NAME for those that are given as pids. Raises StartError.

    Those that we are in ourselves are left out: joining them would need rights over them that a user namespace lacks.
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
    """A field of a request. Raises InvalidRequest."""
    value = message.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InvalidRequest(f"{key}: a {kind.__name__} is wanted, not {value!r:.40}")
    return value


def _told(line: bytes) -> dict[str, Any]:
    """What a child says of its set-up."""
    try:
        told = json.loads(line)
    except (ValueError, RecursionError):
        told = None
    if isinstance(told, dict):
        return told
    return {"error": {"message": f"the set-up said {line[:100]!r}", "stage": "start", "errno": 0}}


def _carries(process: Process, labels: Mapping[str, str]) -> bool:
    return all(process.labels.get(key) == value for key, value in labels.items())


def _error(err: RuntimeApiError) -> dict[str, Any]:
    body: dict[str, Any] = {"kind": type(err).__name__, "message": str(err)}
    if isinstance(err, StartError):
        body |= {"stage": err.stage, "errno": err.errno}
    return {"error": body}
