"""Start a lab from the host's side: state directory, door, sandbox, progress; and take it all back on failure."""

from __future__ import annotations

import errno
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from kubewire.components.kubeapi import kubeconfig
from kubewire.lab.bringup import router_packages
from kubewire.lab.errors import BringUpFailed, LabError, UsageError
from kubewire.lab.needs import bridge_netfilter, ip_vs, kernel_needs
from kubewire.lab.sandbox.contents import Contents, Shared
from kubewire.lab.sandbox.process import code_folders, events, id_map, start
from kubewire.lab.sandbox.request import Doors, Request, as_file
from kubewire.lab.state import HostRecord, LabRecord, StateDirectory, find, start_time
from kubewire.scenarios.engine.file.spec import LabSpec

#: Called with each progress event: {"step", "state"}, {"note"}, {"ready"} ...
Report = Callable[[dict[str, Any]], None]


def open_door(port: int) -> socket.socket:
    """The listening socket on the machine's loopback that lab/sandbox/door.py serves; port 0 picks a free one."""
    door = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        door.bind(("127.0.0.1", port))
    except OSError as error:
        door.close()
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            why = "is already in use" if error.errno == errno.EADDRINUSE else "needs more rights than you have"
            raise UsageError(
                f"port {port} on 127.0.0.1 {why}; choose another with --api-port, or leave it out for a free one"
            ) from None
        raise
    door.listen(256)
    return door


@dataclass(frozen=True)
class StartedLab:
    """A lab that this process has brought up. lifeline: while it is open, an attached lab goes on."""

    state: StateDirectory
    record: LabRecord
    lifeline: BinaryIO

    def end(self) -> None:
        """End it and remove its state directory; a later lab of the same name is left alone. Idempotent."""
        self.lifeline.close()
        _end(self.state, self.record)


def up(spec: LabSpec, name: str, report: Report, *, api_port: int = 0, attached: bool = False) -> StartedLab:
    """Bring a lab up; returns when it is ready. attached: it ends with this process.

    Raises UsageError (a lab of this name runs, the port is taken, the kernel lacks what the mode needs) and
    BringUpFailed; nothing is left behind then.
    """
    kernel_needs.ensure(spec)
    _shares(spec)
    ip_vs.ensure(spec)
    bridge_netfilter.ensure()
    _routers(spec, report)
    _components(spec)
    state = find(name)
    record = LabRecord.new(name, spec.as_dict(), attached=attached)
    try:
        if not state.claim(record):
            raise UsageError(f"lab {name!r} is already running; end it with: kubewire down --name {name}")
        with _doors(state, api_port) as doors:
            lifeline = _start(spec, state, record, doors, report, attached)
    except BaseException as error:
        _end(state, record)
        if isinstance(error, OSError):  # a full disk, no right to write there
            raise BringUpFailed("make the state directory", str(error)) from error
        raise
    if not attached:
        lifeline.close()
    return StartedLab(state, record, lifeline)


def _routers(spec: LabSpec, report: Report) -> None:
    """Other people's daemons for the routers, where the lab wants them. Raises UsageError."""
    if spec.topology.routing == "static" or router_packages.find() is not None:
        return
    step = "unpack Debian's BIRD, FRR and GoBGP (once)"
    report({"step": step, "state": "start"})
    began = time.monotonic()
    try:
        router_packages.ensure()
    except router_packages.NoRouters as error:
        raise UsageError(f"topology.routing: {spec.topology.routing} cannot be used here: {error}") from error
    report({"step": step, "state": "done", "seconds": round(time.monotonic() - began, 3)})


def _components(spec: LabSpec) -> None:
    """Raises UsageError for a name of `components` that one of the lab's own has on the same node."""
    if not spec.components or not spec.kubernetes:
        return
    from kubewire.lab.bringup.components import component_specs, taken_name

    if taken := taken_name(component_specs(spec, spec.plan, "", "")):
        raise UsageError(f"components: {taken.host} runs the lab's own {taken.name}; give yours another name")


def _end(state: StateDirectory, record: LabRecord) -> None:
    record.kill()
    state.release(record.token)


@contextmanager
def _doors(state: StateDirectory, api_port: int) -> Iterator[Doors]:
    """All sockets that lead into the lab, bound on this side: nothing inside can put others in their places."""
    with (
        open_door(api_port) as outer,
        _unix_socket(state.api_socket) as api,
        _unix_socket(state.control_socket) as control,
        _unix_socket(state.runtime_socket) as runtime,
    ):
        yield Doors(outer, api, control, runtime)


def _unix_socket(path: Path) -> socket.socket:
    """A listening one, for its owner only: the folder around it is 0700."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen(128)
    return listener


def _shares(spec: LabSpec) -> None:
    """Raises UsageError for a path of `share` that is not there."""
    for share in spec.share:
        if not Path(share.path).exists():
            raise UsageError(f"share: {share.path} does not exist; name a file or folder of this machine")


def contents(spec: LabSpec, state: StateDirectory) -> Contents:
    """What the lab sees of this machine."""
    programs = code_folders()
    if spec.topology.routing != "static" and (folder := router_packages.find()) is not None:
        programs.append(folder)
    return Contents(
        programs=tuple(programs),
        logs=state.logs,
        shared=tuple(Shared(Path(share.path), share.readOnly) for share in spec.share),
    )


def _give_logs(spec: LabSpec, state: StateDirectory) -> None:
    """The folder of logs belongs to the lab's root: it is all that a lab writes outside of itself."""
    if os.geteuid() == 0 and not spec.has_host_users:
        owner = id_map(Path("/proc/self/uid_map").read_text())[0].outside
        os.chown(state.logs, owner, owner)


def _start(
    spec: LabSpec, state: StateDirectory, record: LabRecord, doors: Doors, report: Report, attached: bool
) -> BinaryIO:
    """Make the sandbox and wait until the lab in it is ready, keeping the record up to date; returns the lifeline."""
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
            raise BringUpFailed("make the sandbox", "its first process ended at once", output=_log(state))
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
    """A host as the lab describes it. Raises BringUpFailed: what comes from inside is data, and is checked."""
    texts = ("name", "role", "address", "secondary")
    if not isinstance(entry.get("pid"), int) or not all(isinstance(entry.get(key), str) for key in texts):
        raise BringUpFailed("bring up the lab", f"the lab describes a host as {entry!r}")
    return HostRecord(**{key: entry[key] for key in (*texts, "pid")})


def write_kubeconfig(state: StateDirectory, record: LabRecord, parts: Mapping[str, str]) -> None:
    """The administrator's kubeconfig through the door. Of the lab come three PEM texts, and nothing else in it."""
    credentials = kubeconfig.Credentials(
        server=f"https://127.0.0.1:{record.port}",
        ca=str(parts["ca"]).encode(),
        certificate=str(parts["certificate"]).encode(),
        key=str(parts["key"]).encode(),
    )
    text = kubeconfig.dump(f"kubewire-{state.name}", credentials, "kubernetes-admin")
    state.kubeconfig.touch(mode=0o600)
    state.kubeconfig.write_text(text)


def _follow(state: StateDirectory, record: LabRecord, stream: BinaryIO, report: Report) -> list[dict[str, Any]]:
    """Report bring-up's events until it is done; returns the lab's hosts."""
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
    why = "the sandbox ended without saying why" if state.holds(record.token) else "`kubewire down` ended it"
    raise BringUpFailed(step, why, output=_log(state))


def _log(state: StateDirectory) -> str:
    return state.read_log("lab.log")


def down(state: StateDirectory) -> bool:
    """End a lab, also one that is coming up, and remove its state directory; says whether there was one. Idempotent."""
    existed = state.path.exists()
    record = state.settled()
    if record is not None:
        if not record.ready:
            with suppress(OSError):  # a full disk: its starter will not know why, that is all
                state.condemn(record.token)
        record.kill()
    state.release(record.token if record else "")
    return existed


class Interrupted(LabError):
    """Ctrl-C or SIGTERM during a long operation; 130 as shells have it."""

    exit_code = 130


def raise_on_signals() -> None:
    """SIGTERM and SIGHUP unwind like ctrl-C, so that every `finally` runs; once, for a second must not stop those."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def interrupt(number: int, _: object) -> None:
        for one in numbers:
            signal.signal(one, signal.SIG_IGN)
        raise Interrupted(f"interrupted by {signal.Signals(number).name}")

    if threading.current_thread() is threading.main_thread():
        for number in numbers:
            signal.signal(number, interrupt)
