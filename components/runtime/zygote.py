"""A forking parent: preloads modules, then forks children for the fork server and reaps them.

It touches as little memory as it can: it neither reads the specs (they are in a memfd, which the child reads) nor
keeps anything but pids, so its pages stay shared with all its children. Single-threaded by construction.
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

from kubewire.components.kernel import namespaces as ns

from .child import Task, become
from .heap import fill_holes
from .title import ArgvArea, set_title
from .wire import receive_once

#: kind, serial number of the child, value. To us: S spawn (value: PID_*), B the same with builder.py, K signal one,
#: G signal its group (value: signal). From us: P spawned (value: pid), E not forked (value: errno), X exited (value:
#: wait status).
MESSAGE = struct.Struct("<cIi")
_PR_SET_CHILD_SUBREAPER = 36
PID_SAME, PID_NEW, PID_JOIN = 0, 1, 2


def run(channel: socket.socket, name: str, modules: Sequence[str], area: ArgvArea | None) -> NoReturn:
    """Preload modules, then serve channel until the fork server closes it. Never returns."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ns.set_parent_death_signal(signal.SIGKILL)
    # What our children leave behind is ours to reap, whoever is PID 1.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    set_title(area, name)
    for module in modules:
        importlib.import_module(module)
    gc.collect()
    fill_holes()
    gc.freeze()
    gc.disable()
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
        """Until the channel closes (None), or, in a child, what to become."""
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
        # A signal between fork and the reset of handlers in the child would write to our wakeup pipe.
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
        """fork(), the child in a new pid namespace or in that of the third descriptor.

        unshare and setns change the pid namespace of *children*; going back to our own is allowed, since it is
        an ancestor-or-self of where the children go (pid_namespaces(7)).
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
        # We have not reaped it, so the number cannot have been given to another process.
        try:
            os.kill(pid, number)
        except OSError:
            # A group that the child has not made yet (setsid comes after fork), or that has no such signal number.
            if pid < 0:
                os.kill(-pid, number)

    def _tell(self, kind: bytes, serial: int, value: int) -> None:
        self._channel.sendall(MESSAGE.pack(kind, serial, value))
