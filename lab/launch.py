"""Starts and ends a lab from the machine's side.

`up` checks what the lab needs, claims the lab's name by making its state directory, binds the
sockets that lead in, starts the sandbox, and reports the events of bring-up until the lab is ready.
If anything fails on the way, it ends the sandbox and removes the state directory, so that a failed
`up` leaves nothing behind.

The sockets are bound here and inherited by the lab, so nothing inside decides where the machine's
side connects to. Whatever the lab sends (its hosts, its certificates) is data and is checked before
it is used.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from kubewire.components.kubeapi import kubeconfig
from kubewire.lab import bytecode
from kubewire.lab.bringup import router_packages
from kubewire.lab.errors import BringUpFailed, LabError, UsageError
from kubewire.lab.needs import bridge_netfilter, ip_vs, kernel_needs
from kubewire.lab.sandbox.contents import Contents, Shared
from kubewire.lab.sandbox.process import code_folders, events, id_map, start
from kubewire.lab.sandbox.request import Doors, Request, as_file
from kubewire.lab.state import HostRecord, LabRecord, StateDirectory, find, start_time
from kubewire.scenarios.engine.file.spec import LabSpec

#: Is called with each event of bring-up: {"step", "state"}, {"note"}, {"ready"} ...
Report = Callable[[dict[str, Any]], None]


def open_door(port: int) -> socket.socket:
    """Bind the listening socket on the machine's loopback that lab/sandbox/door.py serves. Port 0
    takes a free one. Raises UsageError if the port is taken."""
    door = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        door.bind(("127.0.0.1", port))
    except OSError as error:
        door.close()
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            in_use = error.errno == errno.EADDRINUSE
            why = "is already in use" if in_use else "needs more rights than you have"
            raise UsageError(
                f"port {port} on 127.0.0.1 {why}; choose another with --api-port, "
                "or leave --api-port out for a free port"
            ) from None
        raise
    door.listen(256)
    return door


@dataclass(frozen=True)
class StartedLab:
    """A lab that this process has brought up. An attached lab ends when lifeline is closed."""

    state: StateDirectory
    record: LabRecord
    lifeline: BinaryIO

    def end(self) -> None:
        """End the lab and remove its state directory. A later lab of the same name is left alone.
        Idempotent."""
        self.lifeline.close()
        _end(self.state, self.record)


def up(
    spec: LabSpec,
    name: str,
    report: Report,
    *,
    api_port: int = 0,
    attached: bool = False,
) -> StartedLab:
    """Bring a lab up; returns when it is ready. attached: the lab ends with this process.

    Raises UsageError if a lab of this name runs, the port is taken or the kernel lacks a feature
    that the lab file needs, and BringUpFailed if a step fails. Nothing is left behind then.
    """
    kernel_needs.ensure(spec)
    bytecode.ensure()
    _programs(spec)
    _shares(spec)
    ip_vs.ensure(spec)
    bridge_netfilter.ensure()
    _routers(spec, report)
    _components(spec)
    state = find(name)
    record = LabRecord.new(name, spec.as_dict(), attached=attached)
    try:
        if not state.claim(record):
            raise UsageError(
                f"lab {name!r} is already running; end it with: kubewire down --name {name}",
            )
        with _doors(state, api_port) as doors:
            lifeline = _start(spec, state, record, doors, report, attached)
    except BaseException as error:
        _end(state, record)
        if isinstance(error, OSError):  # for example a full disk, or a folder that is not writable
            raise BringUpFailed("make the state directory", str(error)) from error
        raise
    if not attached:
        lifeline.close()
    return StartedLab(state, record, lifeline)


def _routers(spec: LabSpec, report: Report) -> None:
    """Unpack the routing daemons if the lab file needs them. Raises UsageError."""
    if spec.topology.routing == "static" or router_packages.find() is not None:
        return
    step = "unpack Debian's BIRD, FRR and GoBGP (once)"
    report({"step": step, "state": "start"})
    began = time.monotonic()
    try:
        router_packages.ensure()
    except router_packages.NoRouters as error:
        routing = spec.topology.routing
        raise UsageError(f"topology.routing: {routing} cannot be used here: {error}") from error
    report({"step": step, "state": "done", "seconds": round(time.monotonic() - began, 3)})


def _components(spec: LabSpec) -> None:
    """Check `components`. Raises UsageError if one has the name of a component of the lab on the
    same node."""
    if not spec.components or not spec.kubernetes:
        return
    from kubewire.lab.bringup.components import (
        ETCD,
        component_specs,
        taken_name,
        unknown_program,
    )

    if name := unknown_program(spec):
        raise UsageError(f"components: no node that {name} is for runs a component of this name")
    listed = list(component_specs(spec, spec.plan, "", ""))
    etcd = next((one.argv[0] for one in listed if one.name == ETCD), "")
    if etcd and not Path(etcd).exists():
        raise UsageError(
            f"components: an API server of your own needs {etcd}; install the package etcd-server, "
            "or name one with program"
        )
    if taken := taken_name(listed):
        raise UsageError(
            f"components: {taken.host} runs the lab's own {taken.name}; give yours another name",
        )


def _end(state: StateDirectory, record: LabRecord) -> None:
    record.kill()
    state.release(record.token)


@contextmanager
def _doors(state: StateDirectory, api_port: int) -> Iterator[Doors]:
    """Bind all sockets that lead into the lab. Because this side binds them, the lab cannot put
    others in their places."""
    with (
        open_door(api_port) as outer,
        _unix_socket(state.api_socket) as api,
        _unix_socket(state.control_socket) as control,
        _unix_socket(state.runtime_socket) as runtime,
    ):
        yield Doors(outer, api, control, runtime)


def _unix_socket(path: Path) -> socket.socket:
    """Bind a listening unix socket. Only its owner can reach it, because its folder is 0700."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen(128)
    return listener


def _programs(spec: LabSpec) -> None:
    """Check `components[].program`. Raises UsageError for what this machine cannot run."""
    for number, component in enumerate(spec.components):
        program = component.program
        if program and not (Path(program).is_file() and os.access(program, os.X_OK)):
            raise UsageError(
                f"components[{number}].program: {program} is no executable file of this machine",
            )


def _shares(spec: LabSpec) -> None:
    """Check `share`. Raises UsageError for a path that does not exist."""
    for share in spec.share:
        if not Path(share.path).exists():
            raise UsageError(
                f"share: {share.path} does not exist; name a file or folder of this machine",
            )


def contents(spec: LabSpec, state: StateDirectory) -> Contents:
    """The files of this machine that the lab sees."""
    programs = code_folders()
    if spec.topology.routing != "static" and (folder := router_packages.find()) is not None:
        programs.append(folder)
    return Contents(
        programs=tuple(programs),
        logs=state.logs,
        shared=tuple(Shared(Path(share.path), share.readOnly) for share in spec.share),
    )


def _give_logs(spec: LabSpec, state: StateDirectory) -> None:
    """Make the lab's root the owner of the folder of logs, the only folder outside that it
    writes."""
    if os.geteuid() == 0 and not spec.has_host_users:
        owner = id_map(Path("/proc/self/uid_map").read_text())[0].outside
        os.chown(state.logs, owner, owner)


def _start(
    spec: LabSpec,
    state: StateDirectory,
    record: LabRecord,
    doors: Doors,
    report: Report,
    attached: bool,
) -> BinaryIO:
    """Make the sandbox and wait until the lab in it is ready; write the record at each stage.
    Returns the lifeline."""
    record.port = doors.outer.getsockname()[1]
    state.update(record)
    request = Request(
        record.name,
        record.spec,
        contents(spec, state),
        doors,
        attached=attached,
        host_users=spec.has_host_users,
    )
    try:
        _give_logs(spec, state)
        with as_file(request.text()) as document:
            kept = [document, *doors.descriptors()]
            init, stream = start([str(document)], state.logs / "lab.log", kept)
    except OSError as error:
        raise BringUpFailed("make the sandbox", str(error)) from error
    try:
        began = start_time(init)
        if began is None:
            raise BringUpFailed(
                "make the sandbox",
                "its first process ended at once",
                output=_log(state),
            )
        record.init_pid, record.init_start = init, began
        state.update(record)
        record.hosts = [_host(entry) for entry in _follow(state, record, stream, report)]
        record.ready = True
        state.update(record)
    except BaseException:
        stream.close()
        raise
    return stream


def _host(entry: Mapping[str, Any]) -> HostRecord:
    """A host as the lab describes it. Raises BringUpFailed if the description is malformed."""
    texts = ("name", "role", "address", "secondary")
    has_texts = all(isinstance(entry.get(key), str) for key in texts)
    if not has_texts or not isinstance(entry.get("pid"), int):
        raise BringUpFailed(
            "bring up the lab",
            f"the lab sent a malformed description of a host: {entry!r}",
        )
    return HostRecord(**{key: entry[key] for key in (*texts, "pid")})


def write_kubeconfig(state: StateDirectory, record: LabRecord, parts: Mapping[str, str]) -> None:
    """Write the administrator's kubeconfig, which leads through the door. Only three PEM texts in
    it come from the lab; a kubeconfig may name programs to run, so the rest is made here."""
    credentials = kubeconfig.Credentials(
        server=f"https://127.0.0.1:{record.port}",
        ca=str(parts["ca"]).encode(),
        certificate=str(parts["certificate"]).encode(),
        key=str(parts["key"]).encode(),
    )
    text = kubeconfig.dump(f"kubewire-{state.name}", credentials, "kubernetes-admin")
    state.kubeconfig.touch(mode=0o600)
    state.kubeconfig.write_text(text)


def _follow(
    state: StateDirectory,
    record: LabRecord,
    stream: BinaryIO,
    report: Report,
) -> list[dict[str, Any]]:
    """Report the events of bring-up until the lab is ready; returns the lab's hosts."""
    step = "bring up the lab"
    for event in events(stream):
        if parts := event.get("administrator"):
            write_kubeconfig(state, record, parts)
            continue
        report(event)
        step = event.get("step", step)
        if failed := event.get("failed"):
            raise BringUpFailed(**failed)
        if "ready" in event:
            hosts: list[dict[str, Any]] = event["ready"]
            return hosts
    why = "the sandbox ended without an error message"
    if not state.holds(record.token):
        why = "`kubewire down` ended it"
    raise BringUpFailed(step, why, output=_log(state))


def _log(state: StateDirectory) -> str:
    return state.read_log("lab.log")


class Interrupted(LabError):
    """Ctrl-C or SIGTERM ended a long operation. The exit code is 130, as in shells."""

    exit_code = 130


def raise_on_signals() -> None:
    """Make SIGINT, SIGTERM and SIGHUP raise Interrupted, so that every `finally` runs. Only the
    first one does, because a second one must not interrupt the clean-up."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def interrupt(number: int, _: object) -> None:
        for one in numbers:
            signal.signal(one, signal.SIG_IGN)
        raise Interrupted(f"interrupted by {signal.Signals(number).name}")

    if threading.current_thread() is threading.main_thread():
        for number in numbers:
            signal.signal(number, interrupt)
