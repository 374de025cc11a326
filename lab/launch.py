"""Start a lab from the host's side: state directory, door, sandbox, progress; and take it all back on failure."""

from __future__ import annotations

import errno
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

from lab import bridge_netfilter, ip_vs, kernel_needs, router_packages
from lab.errors import BringUpFailed, LabError, UsageError
from lab.sandbox import events, start
from lab.state import HostRecord, LabRecord, StateDirectory, find, start_time
from scenarios.engine.spec import LabSpec

#: Called with each progress event: {"step", "state"}, {"note"}, {"ready"} ...
Report = Callable[[dict[str, Any]], None]


def open_door(port: int) -> socket.socket:
    """The listening socket on the machine's loopback that the API server inherits; port 0 picks a free one."""
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
    ip_vs.ensure(spec)
    bridge_netfilter.ensure()
    _routers(spec, report)
    state = find(name)
    record = LabRecord.new(name, spec.as_dict())
    try:
        if not state.claim(record):
            raise UsageError(f"lab {name!r} is already running; end it with: kubewire down --name {name}")
        with open_door(api_port) as door:
            lifeline = _start(state, record, door, report, attached)
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


def _end(state: StateDirectory, record: LabRecord) -> None:
    record.kill()
    state.release(record.token)


def _start(state: StateDirectory, record: LabRecord, door: socket.socket, report: Report, attached: bool) -> BinaryIO:
    """Make the sandbox and wait until the lab in it is ready, keeping the record up to date; returns the lifeline."""
    record.port = door.getsockname()[1]
    state.update(record)
    arguments = [str(state.path), str(door.fileno()), "attached" if attached else "detached"]
    try:
        init, stream = start(arguments, state.logs / "lab.log", [door.fileno()])
    except OSError as error:
        raise BringUpFailed("make the sandbox", str(error)) from error
    try:
        began = start_time(init)
        if began is None:
            raise BringUpFailed("make the sandbox", "its first process ended at once", output=_log(state))
        record.init_pid, record.init_start = init, began
        state.update(record)
        record.hosts = [HostRecord(**host) for host in _follow(state, record, stream, report)]
        record.ready = True
        state.update(record)
    except BaseException:
        stream.close()
        raise
    return stream


def _follow(state: StateDirectory, record: LabRecord, stream: BinaryIO, report: Report) -> list[dict[str, Any]]:
    """Report bring-up's events until it is done; returns the lab's hosts."""
    step = "bring up the lab"
    for event in events(stream):
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
    with suppress(OSError):
        return (state.logs / "lab.log").read_text(errors="replace")
    return ""


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
