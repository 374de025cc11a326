"""`kubewire node N -- CMD`: run a command in a host's namespaces, and carry its streams.

The command is a process of the lab's fork server. This process never enters the lab, where a privileged process could
read its environment (/proc/PID/environ), and hands none of its own descriptors in: only pipes. So whatever stays
behind in the lab has no way to the caller's terminal or files.
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

from kubewire.components.runtime.api import Process, ProcessSpec, RuntimeApiError, RuntimeClient, StartError, Tty
from kubewire.lab.errors import LabError, UsageError
from kubewire.lab.launch import Interrupted
from kubewire.lab.sandbox.process import clean_environment
from kubewire.lab.state import LabRecord, StateDirectory

_CHUNK = 64 * 1024


def run(state: StateDirectory, record: LabRecord, host: str, command: Sequence[str]) -> int:
    """Returns the command's exit code (127 when there is no such command). With a terminal for both input and output,
    the command gets a terminal of the lab.

    Raises UsageError for an unknown host, LabError when the lab does not answer or ends meanwhile.
    """
    if not record.hosts:
        raise UsageError(f"lab {state.name!r} is still coming up")
    pids = {entry.name: entry.pid for entry in record.hosts}
    if host not in pids:
        raise UsageError(f"no host {host!r} in lab {state.name!r}; there are {', '.join(pids)}")
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
        raise LabError(f"lab {state.name!r} does not answer: {error}; look into {state.logs}/runtime.log") from error


def _environment(host: str) -> dict[str, str]:
    passed = {name: os.environ[name] for name in ("TERM", "COLORTERM") if name in os.environ}
    return clean_environment(os.environ) | {"PS1": f"{host}:\\w# ", "KUBEWIRE_HOST": host} | passed


def _on_pipes(client: RuntimeClient, state: StateDirectory, spec: ProcessSpec) -> int:
    with ExitStack() as stack:
        process, feed, out, errors = _spawn(client, spec)
        stack.enter_context(_handling(_SENT_ON, lambda number: _signal(state, process, number)))
        _start(_feed, feed)
        # What it has started may go on with its streams: it is over when the process has ended, and all it said is out.
        ended, ends = os.pipe()
        stack.callback(os.close, ended)
        copying = _start(_copy, {out: 1, errors: 2}, ended)
        try:
            code = client.wait(process.id).shell_code
        finally:
            os.close(ends)
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
        copying.join()  # the fork server ends it with the process
        return code


def _spawn(client: RuntimeClient, spec: ProcessSpec) -> tuple[Process, int, int, int]:
    """The process, the writing end of its input, the reading ends of its output and errors."""
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
    """The caller's input, up to its end."""
    # Reading a terminal in the background would stop the whole program (termios(3)); so it is an error, and the end.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTTIN,))
    with suppress(OSError):
        while data := os.read(0, _CHUNK):
            _write(feed, data)
    os.close(feed)


def _copy(ways: dict[int, int], ended: int | None) -> None:
    """From each pipe to a descriptor of ours, up to its end; once `ended` has, only what is there already."""
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
    """Copy a chunk. False: the source has ended, or the target takes no more."""
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
        except BlockingIOError:  # the caller's descriptor; it may be one that somebody else has set so
            select.select([], [target], [])


#: What a terminal or a shell sends to a command that it runs; the command's to handle.
_SENT_ON = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def _handling(numbers: Sequence[signal.Signals], handle: Callable[[int], None]) -> Iterator[None]:
    before = {number: signal.signal(number, lambda received, _: handle(received)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _signal(state: StateDirectory, process: Process, number: int) -> None:
    """To all of the command, as a terminal does. A connection of its own: the other one is waiting."""
    spec = ProcessSpec(main="kubewire.lab.sandbox.node_shell:signal_session", args=(str(process.pid), str(number)))
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
    """Every key goes to the lab's terminal, which does what the caller's does otherwise."""
    sys.stdout.flush()
    before = termios.tcgetattr(terminal)
    tty.setraw(terminal)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
