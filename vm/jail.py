"""Isolates a virtual machine's process on the host:
`python -m kubewire.vm.jail SPEC.json LIFELINE`.

The guest runs as root inside, and UML's hostfs turns its file accesses into system calls on the
host. So the process must be unable to do harm, whatever the guest does: it has its own network,
mount, pid, ipc and uts namespaces; every file of the host is read-only except the shared folder; it
runs as nobody and cannot gain rights (no_new_privs); and its network namespace is empty.

PID 1 of the pid namespace only waits for the machine, which is its child; when PID 1 ends, the
kernel kills everything that the machine started. The machine must not be PID 1 itself: the kernel
does not deliver signals without a handler to PID 1, and a panicking User-mode Linux ends by
abort(3), so it would try that for ever (pid_namespaces(7)).

No process may survive its starter. LIFELINE is the read end of a pipe; when the other end closes,
for whatever reason, this process kills the machine and removes its folder. When this process itself
is killed, the kernel kills PID 1 (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubewire.components.kernel import namespaces as ns

NOBODY = 65534
#: The path of the shared folder for the machine, and a place for its mounts; both are in its own
#: /tmp.
SHARE = Path("/tmp/io")
SCRATCH = Path("/tmp/root")
CANNOT_START = 125
_PR_SET_NO_NEW_PRIVS = 38
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Spec:
    """argv: the machine's program. visible: paths that it must be able to read. size: MiB of its
    /tmp.

    terminal: it uses the standard input. share: the shared folder, inside the machine's folder on
    the host. cpu: the only CPU it may use, -1 for all (UML's processes take turns; a turn between
    two CPUs costs more).
    """

    argv: Sequence[str]
    share: str
    visible: Sequence[str] = ()
    size: int = 1024
    terminal: bool = False
    cpu: int = -1
    env: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Spec:
        data: dict[str, Any] = json.loads(text)
        return cls(**data)


def main(spec: Spec, lifeline: int) -> int:
    """Runs the machine. Returns its exit code, 128 + signal if it was killed, 125 if it could not
    be started."""
    try:
        _enter_namespaces()
        launcher = os.pidfd_open(os.getpid())
        child = os.fork()
        if child == 0:
            _first(spec, launcher)
    except OSError as error:
        print(
            f"kubewire-vm: cannot isolate the virtual machine: {error}",
            file=sys.stderr,
            flush=True,
        )
        return CANNOT_START
    return _until_either_ends(spec, child, lifeline)


def _enter_namespaces() -> None:
    if os.geteuid() != 0:
        uid = os.geteuid()
        gid = os.getegid()
        ns.unshare(ns.CLONE_NEWUSER)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    ns.unshare(ns.CLONE_NEWPID | ns.CLONE_NEWNET | ns.CLONE_NEWIPC | ns.CLONE_NEWUTS)


def _until_either_ends(spec: Spec, child: int, lifeline: int) -> int:
    pidfd = os.pidfd_open(child)
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    poller.register(lifeline, 0)  # POLLHUP
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: os.kill(child, signal.SIGKILL))
    over = [descriptor for descriptor, _ in poller.poll()]
    if pidfd not in over:
        os.kill(child, signal.SIGKILL)
    code = _exit_code(os.waitpid(child, 0)[1])
    if lifeline in over:  # the starter is gone and cannot remove the folder
        shutil.rmtree(Path(spec.share).parent, ignore_errors=True)
    return code


def _first(spec: Spec, launcher: int) -> None:
    """PID 1 of the namespace. Waits for the machine's end; never returns. launcher: a pidfd of its
    parent."""
    try:
        _die_with(launcher)
        ns.unshare(
            ns.CLONE_NEWNS
        )  # not in the launcher, which must be able to remove the folder at the end
        _files(spec)
        _drop_rights()
        _die_with(launcher)  # a change of the user clears the parent death signal
        machine = os.fork()
        if machine == 0:
            _run(spec)
        os._exit(_reap_until(machine))
    except OSError as error:
        print(f"kubewire-vm: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(CANNOT_START)


def _reap_until(machine: int) -> int:
    """Reaps all children, as PID 1 must, until the machine ends; returns its exit code."""
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == machine:
            return _exit_code(status)


def _exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _run(spec: Spec) -> None:
    """Executes the machine's program. Raises OSError if that fails, else never returns."""
    if spec.cpu >= 0:
        os.sched_setaffinity(0, {spec.cpu})
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not spec.terminal:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.setpgid(0, 0)  # a panicking User-mode Linux sends SIGTERM to its whole process group
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "TMPDIR": "/tmp", **spec.env}
    os.execve(spec.argv[0], list(spec.argv), environment)


def _die_with(launcher: int) -> None:
    ns.set_parent_death_signal(signal.SIGKILL)
    poller = select.poll()
    poller.register(launcher, select.POLLIN)
    if poller.poll(0):  # the launcher had ended before the signal was set
        os._exit(CANNOT_START)


def _files(spec: Spec) -> None:
    """Mounts: the host's files read-only, a new /tmp, and visible paths inside closed folders."""
    ns.mount("none", "/", "", ns.MS_REC | ns.MS_PRIVATE)
    held = {path: os.open(path, os.O_PATH) for path in spec.visible}
    share = os.open(spec.share, os.O_PATH | os.O_DIRECTORY)
    private = sorted(set(closed_folders(spec.visible)))
    for folder in ["/tmp", *private]:
        ns.mount(
            "kubewire-vm",
            folder,
            "tmpfs",
            ns.MS_NOSUID | ns.MS_NODEV,
            f"mode=755,size={spec.size}m",
        )
    for path, descriptor in held.items():
        if path.startswith(tuple(f"{folder}/" for folder in ["/tmp", *private])):
            _bind(descriptor, Path(path))
        os.close(descriptor)
    SCRATCH.mkdir()
    _bind(share, SHARE)
    os.close(share)
    ns.read_only("/")
    for writable in ("/tmp", SHARE):  # the machine keeps its memory in /tmp
        ns.read_only(writable, recursive=False, on=False)
    Path("/tmp").chmod(0o1777)
    ns.mount("proc", "/proc", "proc", ns.MS_NOSUID | ns.MS_NODEV | ns.MS_NOEXEC)


def _bind(descriptor: int, target: Path) -> None:
    source = f"/proc/self/fd/{descriptor}"
    if Path(source).is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    ns.bind(source, target, recursive=True)


def closed_folders(paths: Sequence[str]) -> Iterator[str]:
    """For each path its topmost parent that other users may not enter. Paths in /tmp are covered
    anyway."""
    if os.geteuid() != 0:
        return
    for path in paths:
        for folder in [*reversed(Path(path).parents)]:
            if str(folder) == "/tmp":
                break
            if not folder.stat().st_mode & 0o001:
                yield str(folder)
                break


def _drop_rights() -> None:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    os.chdir("/")
    os.umask(0o022)


if __name__ == "__main__":
    os.set_inheritable(int(sys.argv[2]), False)
    sys.exit(main(Spec.parse(Path(sys.argv[1]).read_text()), int(sys.argv[2])))
