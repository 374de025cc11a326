"""A forking parent: it imports modules, then forks children for the fork server and reaps them.

Android's zygote is the model. fork(2) copies no memory: parent and children share all pages until
one of them writes to a page, which the kernel then copies. So a child costs only what it changes
itself, as long as the parent leaves its pages alone. Everything here serves that:

- The parent does not read the specs. They are in a memfd, which the child reads.
- It keeps nothing but pids and serial numbers.
- Before the first fork it collects garbage, fills the holes in its heap (heap.py), and excludes
  all objects from later collections (gc.freeze()), because a collection writes to each object.
- It has a single thread. fork(2) only copies the calling thread, and a lock that another one holds
  would stay locked in the child for ever.

The parent also does what only a process's parent can do. It enters the pid namespace around
fork(), because unshare(2) and setns(2) change the pid namespace of later children and not that of
the caller (pid_namespaces(7)). It reaps its children, and is the subreaper of what they leave
behind (PR_SET_CHILD_SUBREAPER, prctl(2)). And it sends their signals: until it has reaped a child,
the kernel cannot give the child's pid to another process, so a signal from the parent cannot hit
the wrong one.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import select
import signal
import socket
import struct
from collections.abc import Sequence
from typing import NoReturn

from kubewire.components.base.authorities import without_authorities
from kubewire.components.kernel import namespaces as ns

from .child import Task, become
from .heap import fill_holes
from .title import ArgvArea, set_title
from .wire import receive_once

#: A message: kind, serial number of the child, value. Kinds to the parent: S spawn (value: PID_*),
#: B spawn with builder.py, K signal the child, G signal its process group (value: signal). Kinds
#: from the parent: P spawned (value: pid), E fork failed (value: errno), X exited (value: wait
#: status).
MESSAGE = struct.Struct("<cIi")
_PR_SET_CHILD_SUBREAPER = 36
PID_SAME = 0
PID_NEW = 1
PID_JOIN = 2


def run(
    channel: socket.socket,
    name: str,
    modules: Sequence[str],
    area: ArgvArea | None,
) -> NoReturn:
    """Imports modules, then serves channel until the fork server closes it. Does not return."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ns.set_parent_death_signal(signal.SIGKILL)
    # Orphans of the children become children of this process, and not of PID 1.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    set_title(area, name)
    # One collection after all imports finds what many would have found on the way.
    gc.disable()
    with without_authorities():
        for module in modules:
            importlib.import_module(module)
    gc.collect()
    fill_holes()
    gc.freeze()
    task = _Zygote(channel).serve()
    os._exit(0 if task is None else become(task, area))


class _Zygote:
    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._children: dict[int, int] = {}
        self._serials: dict[int, int] = {}
        self._own_pid_ns = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._wakeup, wakeup_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wakeup_writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)

    def serve(self) -> Task | None:
        """Forks and reaps until the channel closes. Returns None, or in a child its task."""
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        poll.register(self._wakeup, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == self._wakeup:
                    os.read(self._wakeup, 4096)
                    self._reap()
                    continue
                try:
                    data, fds = receive_once(self._channel, MESSAGE.size)
                except ConnectionResetError:
                    return None
                if not data:
                    return None
                kind, serial, value = MESSAGE.unpack(data)
                if kind in (b"S", b"B"):
                    if (task := self._spawn(serial, value, fds, built=kind == b"B")) is not None:
                        return task
                elif (pid := self._serials.get(serial)) is not None:
                    self._kill(-pid if kind == b"G" else pid, value)

    def _spawn(self, serial: int, pid_mode: int, fds: list[int], built: bool) -> Task | None:
        # A signal to the child before it resets its handlers would write to this process's wakeup
        # pipe.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT))
        try:
            pid = self._fork(pid_mode, fds)
        except OSError as err:
            self._tell(b"E", serial, err.errno or 1)
            pid = -1
        if pid == 0:
            payload, status, *rest = fds
            return Task(payload, status, tuple(rest), built)
        if pid > 0:
            self._children[pid] = serial
            self._serials[serial] = pid
            self._tell(b"P", serial, pid)
        for fd in fds:
            os.close(fd)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT))
        return None

    def _fork(self, pid_mode: int, fds: list[int]) -> int:
        """Calls fork() so that the child is in the right pid namespace: this one, a new one, or
        that of the third descriptor.

        Afterwards, later children go to this process's own pid namespace again. setns(2) allows
        that, because it is an ancestor of the other one, or the same (pid_namespaces(7)).
        """
        if pid_mode == PID_SAME:
            return os.fork()
        if pid_mode == PID_NEW:
            ns.unshare(ns.CLONE_NEWPID)
        else:
            ns.setns(fds[2], ns.CLONE_NEWPID)
        pid = -1
        try:
            pid = os.fork()
        finally:
            if pid != 0:
                ns.setns(self._own_pid_ns, ns.CLONE_NEWPID)
        return pid

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if (serial := self._children.pop(pid, None)) is not None:
                del self._serials[serial]
                self._tell(b"X", serial, status)

    def _kill(self, pid: int, number: int) -> None:
        # The child has not been reaped, so no other process can have its pid.
        try:
            os.kill(pid, number)
        except OSError:
            # The process group does not exist yet, because the child calls setsid() only after the
            # fork.
            if pid < 0:
                os.kill(-pid, number)

    def _tell(self, kind: bytes, serial: int, value: int) -> None:
        self._channel.sendall(MESSAGE.pack(kind, serial, value))
