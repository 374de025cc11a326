"""Start a lab from the host's side: state directory, door, sandbox, progress; and take it all back on failure."""

from __future__ import annotations

import errno
import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from lab.errors import BringUpFailed, LabError, UsageError
from lab.sandbox import events, start
from lab.state import LabRecord, StateDirectory, find, start_time
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


def up(spec: LabSpec, name: str, report: Report, *, api_port: int = 0, attached: bool = False) -> StateDirectory:
    """Bring a lab up; returns when it is ready. attached: it ends with this process.

    Raises UsageError (a lab of this name runs, the port is taken) and BringUpFailed; nothing is left behind then.
    """
    state = find(name)
    if state.path.exists():
        if state.alive():
            raise UsageError(f"lab {name!r} is already running; end it with: kubewire down --name {name}")
        state.remove()
    door = open_door(api_port)
    try:
        state.create()
        return _start(spec, state, door, report, attached)
    except BaseException:
        state.kill()
        state.remove()
        raise
    finally:
        door.close()


def _start(spec: LabSpec, state: StateDirectory, door: socket.socket, report: Report, attached: bool) -> StateDirectory:
    port = door.getsockname()[1]
    record = LabRecord(state.name, 0, 0, port, spec.as_dict())
    state.write(record)
    mode = "attached" if attached else "detached"
    try:
        arguments = [str(state.path), str(door.fileno()), mode]
        init, stream = start(arguments, state.logs / "lab.log", [door.fileno()])
    except OSError as error:
        raise BringUpFailed("make the sandbox", str(error)) from error
    began = start_time(init)
    if began is None:
        os.close(stream)
        raise BringUpFailed("make the sandbox", "its first process ended at once", output=_log(state))
    record.init_pid, record.init_start = init, began
    state.write(record)
    return _follow(state, record, stream, report, attached)


def _follow(state: StateDirectory, record: LabRecord, stream: int, report: Report, attached: bool) -> StateDirectory:
    source = events(stream)
    for event in source:
        report(event)
        if failed := event.get("failed"):
            raise BringUpFailed(**failed)
        if "ready" in event:
            from lab.state import HostRecord

            record.hosts = [HostRecord(**host) for host in event["ready"]]
            record.ready = True
            state.write(record)
            if attached:
                # The pipe stays open as the lab's lifeline for as long as this process lives.
                _LIFELINES[state.name] = source
            return state
    raise BringUpFailed("bring up the lab", "the sandbox ended without saying why", output=_log(state))


_LIFELINES: dict[str, Any] = {}


def _log(state: StateDirectory) -> str:
    with suppress(OSError):
        return (state.logs / "lab.log").read_text(errors="replace")
    return ""


def down(state: StateDirectory) -> bool:
    """End a lab and remove its state directory; says whether there was one. Idempotent."""
    existed = state.path.exists()
    state.kill()
    state.remove()
    _LIFELINES.pop(state.name, None)
    return existed


class Interrupted(LabError):
    """Ctrl-C or SIGTERM during a long operation; 130 as shells have it."""

    exit_code = 130


def raise_on_signals() -> None:
    """SIGTERM and SIGHUP unwind like ctrl-C, so that every `finally` runs."""

    def interrupt(number: int, _: object) -> None:
        raise Interrupted(f"interrupted by {signal.Signals(number).name}")

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, interrupt)
