"""What `kubewire node` runs, as a process of the fork server on a host: the command with the host's name."""

from __future__ import annotations

import os
import signal

from kubewire.components.kernel import namespaces as ns


def main(args: list[str]) -> int:
    """args: the host, then the command. Returns only when there is no such command: 127."""
    host, *command = args
    ns.set_hostname(host)  # Mininet hosts share one; a shell on a node should say where it is
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # by Python, and an ignored signal stays so over exec
        signal.signal(ignored, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except FileNotFoundError:
        os.write(2, f"kubewire: {host}: {command[0]}: command not found\n".encode(errors="replace"))
    except OSError as error:
        os.write(2, f"kubewire: {host}: {error}\n".encode(errors="replace"))
    return 127


def signal_session(args: list[str]) -> int:
    """args: a process that leads a session, a signal. As a terminal does: the whole process group gets it."""
    leader, number = map(int, args)
    try:
        os.killpg(leader, number)
    except ProcessLookupError:
        return 1
    return 0
