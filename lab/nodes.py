"""`kubewire node N -- CMD`: run a command in a host's namespaces, on the caller's own terminal."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

from components.kernel import namespaces as ns
from lab.errors import LabError, UsageError
from lab.sandbox import clean_environment
from lab.state import LabRecord, StateDirectory


def run(state: StateDirectory, record: LabRecord, host: str, command: Sequence[str]) -> int:
    """Returns the command's exit code (127 when there is no such command).

    Raises UsageError for an unknown host, LabError when the lab ends meanwhile.
    """
    if not record.hosts:
        raise UsageError(f"lab {state.name!r} is still coming up")
    pids = {entry.name: entry.pid for entry in record.hosts}
    if host not in pids:
        raise UsageError(f"no host {host!r} in lab {state.name!r}; there are {', '.join(pids)}")
    # The sandbox first (its pid namespace shows the host's pid under /proc), then the host itself.
    names = ["mnt", "pid", "net", "ipc", "uts", "cgroup"]
    try:
        if has_own_users(record.init_pid):
            names.append("user")
        ns.enter(record.init_pid, names)
        # As the lab's root, with the lab's rights: what runs here can be changed by the lab, and must not be able to
        # do more than the lab.
        ns.become(0, 0)
    except OSError as error:
        raise LabError(f"lab {state.name!r} cannot be entered: {error}") from error
    child = os.fork()  # setns(pid) is for children
    if child == 0:
        _exec(pids[host], host, command)
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def has_own_users(pid: int) -> bool:
    """Whether a process is in another user namespace than this one. Raises OSError."""
    return not Path("/proc/self/ns/user").samefile(f"/proc/{pid}/ns/user")


def _exec(pid: int, host: str, command: Sequence[str]) -> None:
    try:
        ns.enter(pid, ["net", "mnt"])
        ns.unshare(ns.CLONE_NEWUTS)  # Mininet hosts share one; a shell on a node should say where it is
        ns.set_hostname(host)
        os.chdir("/")
        environment = clean_environment(os.environ) | {"PS1": f"{host}:\\w# ", "KUBEWIRE_HOST": host}
        environment |= {name: os.environ[name] for name in ("TERM", "COLORTERM") if name in os.environ}
        os.environ.clear()
        os.environ.update(environment)
        os.execvp(command[0], list(command))
    except FileNotFoundError:
        os.write(2, f"kubewire: {host}: {command[0]}: command not found\n".encode())
    except OSError as error:
        os.write(2, f"kubewire: {host}: {error}\n".encode())
    os._exit(127)
