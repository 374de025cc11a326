"""The process that `kubewire node` runs on a host, started by the fork server: it sets the host
name and executes the command."""

from __future__ import annotations

import os
import signal

from kubewire.components.kernel import namespaces as ns


def main(args: list[str]) -> int:
    """Execute a command as a user on the host would. args: the host's name, then the command.

    Returns only if the command cannot be executed, with 127 as shells do.
    """
    host, *command = args
    # Mininet hosts share one UTS namespace; the prompt of a shell should name the node.
    ns.set_hostname(host)
    # Python ignores these two, and an ignored signal stays ignored across execve(2).
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except FileNotFoundError:
        os.write(2, f"kubewire: {host}: {command[0]}: command not found\n".encode(errors="replace"))
    except OSError as error:
        os.write(2, f"kubewire: {host}: {error}\n".encode(errors="replace"))
    return 127


def signal_session(args: list[str]) -> int:
    """Signal a session leader's process group, as a terminal does on ctrl-C. args: pid of the
    leader, number of the signal. Returns 1 if the group does not exist."""
    leader, number = map(int, args)
    try:
        os.killpg(leader, number)
    except ProcessLookupError:
        return 1
    return 0
