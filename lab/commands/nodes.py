"""`kubewire node N -- CMD`: runs a command in a host's namespaces and copies its streams.

The simplest way would be to enter the namespaces and execute the command (nsenter(1)). But then a
process of the machine would be inside the lab, with its environment (/proc/PID/environ) and its
open files within reach of the lab's root. So the lab's fork server starts the command, and this
process stays outside. It hands in pipes only, none of its own descriptors, so a process that stays
behind in the lab has no access to the caller's terminal or files.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from kubewire.components.runtime.api import (
    Process,
    ProcessSpec,
    RuntimeApiError,
    RuntimeClient,
    StartError,
    Tty,
)
from kubewire.lab.errors import LabError, UsageError
from kubewire.lab.launch import Interrupted
from kubewire.lab.sandbox.process import clean_environment
from kubewire.lab.state import LabRecord, StateDirectory

_CHUNK = 64 * 1024


def run(state: StateDirectory, record: LabRecord, host: str, command: Sequence[str]) -> int:
    """Run a command on a host. Returns its exit code (127 if it does not exist). If both input and
    output are terminals, the command gets a terminal of the lab.

    Raises UsageError for an unknown host, LabError if the lab does not answer or ends meanwhile.
    """
    if not record.hosts:
        raise UsageError(f"lab {state.name!r} is still coming up; try again in a moment")
    pids = {entry.name: entry.pid for entry in record.hosts}
    if host not in pids:
        raise UsageError(f"lab {state.name!r} has no host {host!r}; its hosts: {', '.join(pids)}")
    terminal = os.isatty(0) and os.isatty(1)
    spec = ProcessSpec(
        main="kubewire.lab.sandbox.node_shell:main",
        args=(host, *command),
        name=f"node {host}",
        env=_environment(host),
        cwd="/",
        join={"net": pids[host], "mnt": pids[host]},
        unshare=("uts",),
        tty=_size() if terminal else None,
        kill_on_disconnect=True,
    )
    try:
        with RuntimeClient(state.runtime_socket) as client:
            return _on_terminal(client, state, spec) if terminal else _on_pipes(client, state, spec)
    except StartError as error:
        raise LabError(f"{host}: {error}") from error
    except (RuntimeApiError, TimeoutError) as error:
        log = state.logs / "runtime.log"
        raise LabError(f"lab {state.name!r} does not answer: {error}; see {log}") from error


def _environment(host: str) -> dict[str, str]:
    passed = {name: os.environ[name] for name in ("TERM", "COLORTERM") if name in os.environ}
    return clean_environment(os.environ) | {"PS1": f"{host}:\\w# ", "KUBEWIRE_HOST": host} | passed


def _on_pipes(client: RuntimeClient, state: StateDirectory, spec: ProcessSpec) -> int:
    with ExitStack() as stack:
        process, feed, out, errors = _spawn(client, spec)
        stack.enter_context(_handling(_SENT_ON, lambda number: _signal(state, process, number)))
        _start(_feed, feed)
        # A process that the command has started may keep the pipes open. So copying stops when the
        # command has ended and its output so far is copied, not at the end of the pipes.
        ended_reader, ended_writer = os.pipe()
        stack.callback(os.close, ended_reader)
        copying = _start(_copy, {out: 1, errors: 2}, ended_reader)
        try:
            code = client.wait(process.id).shell_code
        finally:
            os.close(ended_writer)
        copying.join()
        return code


def _on_terminal(client: RuntimeClient, state: StateDirectory, spec: ProcessSpec) -> int:
    with ExitStack() as stack:
        process, feed, out, _ = _spawn(client, spec)
        stack.enter_context(_handling((signal.SIGTERM, signal.SIGHUP), _interrupted))
        stack.enter_context(_handling((signal.SIGWINCH,), lambda _: _resize(state, process)))
        stack.enter_context(_raw(0))
        _start(_feed, feed)
        copying = _start(_copy, {out: 1}, None)
        code = client.wait(process.id).shell_code
        copying.join()  # the fork server closes the terminal when the process has ended
        return code


def _spawn(client: RuntimeClient, spec: ProcessSpec) -> tuple[Process, int, int, int]:
    """Start the command. Returns the process, the writing end of its input, and the reading ends of
    its output and errors."""
    pipes = [os.pipe() for _ in range(3)]
    theirs = (pipes[0][0], pipes[1][1], pipes[2][1])
    try:
        process = client.spawn(spec, stdin=theirs[0], stdout=theirs[1], stderr=theirs[2])
    finally:
        for descriptor in theirs:
            os.close(descriptor)
    return process, pipes[0][1], pipes[1][0], pipes[2][0]


def _start(work: Callable[..., None], *arguments: Any) -> threading.Thread:
    thread = threading.Thread(target=work, args=arguments, daemon=True)
    thread.start()
    return thread


def _feed(feed: int) -> None:
    """Copy the caller's input to the command, up to its end."""
    # A background process that reads its terminal is stopped by SIGTTIN (termios(3)). With the
    # signal blocked, read(2) fails instead, and only the input ends.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTTIN,))
    with suppress(OSError):
        while data := os.read(0, _CHUNK):
            _write(feed, data)
    os.close(feed)


def _copy(ways: dict[int, int], ended: int | None) -> None:
    """Copy each pipe to one of our descriptors, up to its end. Once the pipe `ended` is closed,
    copy only what the pipes hold already."""
    poller = select.poll()
    for source in ways:
        os.set_blocking(source, False)
        poller.register(source, select.POLLIN)
    if ended is not None:
        poller.register(ended, 0)
    left = dict(ways)
    while left:
        ready = {descriptor for descriptor, _ in poller.poll()}
        for source in [source for source in left if source in ready]:
            if not _pass(source, left[source]):
                poller.unregister(source)
                os.close(source)
                del left[source]
        if ended in ready and not ready & left.keys():
            return


def _pass(source: int, target: int) -> bool:
    """Copy a chunk. Returns False if the source has ended or the target accepts no more."""
    with suppress(OSError):
        if data := os.read(source, _CHUNK):
            _write(target, data)
            return True
    return False


def _write(target: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(target, view) :]
        except BlockingIOError:  # another process has set the caller's descriptor non-blocking
            select.select([], [target], [])


#: Signals that a terminal or a shell sends to its command; they are passed on to the command.
_SENT_ON = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def _handling(numbers: Sequence[signal.Signals], handle: Callable[[int], None]) -> Iterator[None]:
    before = {}
    for number in numbers:
        before[number] = signal.signal(number, lambda received, _: handle(received))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _signal(state: StateDirectory, process: Process, number: int) -> None:
    """Signal all processes of the command, as a terminal does. Uses a new connection, because the
    other one waits for the command to end."""
    spec = ProcessSpec(
        main="kubewire.lab.sandbox.node_shell:signal_session",
        args=(str(process.pid), str(number)),
    )
    with suppress(RuntimeApiError, TimeoutError), RuntimeClient(state.runtime_socket) as client:
        if client.get(process.id).running:
            client.run(spec)


def _resize(state: StateDirectory, process: Process) -> None:
    size = _size()
    with suppress(RuntimeApiError, TimeoutError), RuntimeClient(state.runtime_socket) as client:
        client.resize(process.id, size.rows, size.columns)


def _interrupted(number: int) -> None:
    raise Interrupted(f"interrupted by {signal.Signals(number).name}")


def _size() -> Tty:
    columns, rows = os.get_terminal_size(1)
    return Tty(rows, columns)


@contextmanager
def _raw(terminal: int) -> Iterator[None]:
    """Set the caller's terminal to raw mode: it passes every key on to the lab's terminal, which
    handles ctrl-C, echo and line editing."""
    sys.stdout.flush()
    before = termios.tcgetattr(terminal)
    tty.setraw(terminal)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
