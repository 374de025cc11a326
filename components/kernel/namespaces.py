"""Linux namespaces and mounts by system call, for Python 3.11: unshare(2), setns(2), mount(2),
pivot_root(2).

A namespace gives a group of processes its own copy of a kernel resource: interfaces and routes
(net), mount table (mnt), process ids (pid), user ids and capabilities (user). unshare(2) creates
one for the caller, setns(2) joins an existing one, and /proc/PID/ns/NAME is a handle to it. Three
rules of the kernel shape all code that uses this module:

- They belong to a thread, not to a process; setns in one thread leaves the others where they are.
  Only processes with a single thread can join a user or a mount namespace.
- A new pid namespace applies to children: a process that unshares or joins one must fork.
- In a user namespace a process has capabilities only over resources that the namespace owns. So the
  user namespace is created or joined first, and mounts inherited from outside cannot be changed at
  will (mount_namespaces(7)).

Python 3.12 has os.unshare and os.setns; Debian 12 ships 3.11, so these calls go through ctypes.
Every function raises OSError with errno and the call's arguments if the kernel refuses.
(namespaces(7), user_namespaces(7).)
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

#: Name under /proc/PID/ns -> clone flag, in the order in which setns must enter them: the user
#: namespace first, because it gives the capabilities for the others; mnt last, because /proc must
#: stay usable.
NAMESPACES: dict[str, int] = {
    "user": CLONE_NEWUSER,
    "cgroup": CLONE_NEWCGROUP,
    "ipc": CLONE_NEWIPC,
    "uts": CLONE_NEWUTS,
    "net": CLONE_NEWNET,
    "pid": CLONE_NEWPID,
    "mnt": CLONE_NEWNS,
}

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MNT_DETACH = 0x2

_AT_RECURSIVE = 0x8000
_MOUNT_ATTR_RDONLY = 0x1
_MOUNT_ATTR_NODEV = 0x4
_MOUNT_ATTR_IDMAP = 0x100000
_OPEN_TREE_CLONE = 0x1
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_AT_EMPTY_PATH = 0x1000
_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_SYS_MOUNT_SETATTR = 442  # the same number on every architecture

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def unshare(flags: int) -> None:
    """unshare(2): moves the calling thread into new namespaces (CLONE_NEW* flags)."""
    _check(_libc.unshare(flags), f"unshare({flags:#x})")


def setns(fd: int, nstype: int = 0) -> None:
    """setns(2): enters the namespace that fd (an open /proc/PID/ns/* file) refers to."""
    _check(_libc.setns(fd, nstype), f"setns(fd {fd}, {nstype:#x})")


def enter(pid: int | str, names: Iterable[str]) -> None:
    """Enters the named namespaces ("net", "mnt", ...) of a process. All are opened before any is
    entered."""
    wanted = set(names)
    if unknown := wanted - NAMESPACES.keys():
        raise ValueError(f"unknown namespaces {sorted(unknown)}; known are {', '.join(NAMESPACES)}")
    opened = [
        (os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC), flag)
        for name, flag in NAMESPACES.items()
        if name in wanted
    ]
    try:
        for fd, flag in opened:
            setns(fd, flag)
    finally:
        for fd, _ in opened:
            os.close(fd)


def enter_path(path: str | Path) -> None:
    """Enters the namespace that is bound to a path such as /run/netns/NAME."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(fd)
    finally:
        os.close(fd)


def mount(
    source: str, target: str | Path, fstype: str = "", flags: int = 0, data: str = ""
) -> None:
    """mount(2)."""
    result = _libc.mount(
        source.encode(),
        os.fsencode(target),
        fstype.encode() or None,
        ctypes.c_ulong(flags),
        data.encode() or None,
    )
    _check(result, f"mount {fstype or 'bind'} {source} on {target} ({data})")


def bind(
    source: str | Path, target: str | Path, *, recursive: bool = False, read_only: bool = False
) -> None:
    """Bind-mounts source on target. read_only makes the second (remount) call that the kernel
    requires."""
    mount(str(source), target, "", MS_BIND | (MS_REC if recursive else 0))
    if read_only:
        mount("none", target, "", MS_REMOUNT | MS_BIND | MS_RDONLY)


def read_only(path: str | Path, *, recursive: bool = True, on: bool = True) -> None:
    """mount_setattr(2): makes a mount (tree) read-only, or writable with on=False, and keeps its
    other flags.

    A remount by mount(2) would clear flags that a user namespace may not change.
    """
    changed = (_MOUNT_ATTR_RDONLY, 0) if on else (0, _MOUNT_ATTR_RDONLY)
    _set_attributes(path, *changed, recursive=recursive)


def restrict(path: str | Path, *, read_only: bool = True) -> None:
    """mount_setattr(2): forbids opening device files in a mount tree, and with read_only writing to
    it."""
    _set_attributes(path, _MOUNT_ATTR_NODEV | (_MOUNT_ATTR_RDONLY if read_only else 0), 0)


def _set_attributes(
    path: str | Path, attr_set: int, attr_clr: int, *, recursive: bool = True
) -> None:
    attributes = (ctypes.c_uint64 * 4)(attr_set, attr_clr, 0, 0)
    flags = _AT_RECURSIVE if recursive else 0
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    result = _libc.syscall(
        _SYS_MOUNT_SETATTR,
        -100,
        os.fsencode(path),
        flags,
        ctypes.byref(attributes),
        size,
    )
    _check(result, f"mount_setattr {path} (set {attr_set:#x}, clear {attr_clr:#x})")


def bind_idmapped(source: int, target: str | Path, user_namespace: int) -> None:
    """Binds the mount tree at an open directory or file on target, with mapped ids
    (mount_setattr(2)).

    A file of user N then belongs to the user that N is inside user_namespace (an open
    /proc/PID/ns/user). Raises OSError: EINVAL if a file system does not support it (overlayfs, 9p,
    hostfs), EPERM without CAP_SYS_ADMIN in the file system's user namespace. Requires Linux 5.12.
    """
    flags = _OPEN_TREE_CLONE | _AT_EMPTY_PATH | _AT_RECURSIVE | os.O_CLOEXEC
    tree = _libc.syscall(_SYS_OPEN_TREE, source, b"", flags)
    _check(tree, f"open_tree for {target}")
    try:
        attributes = (ctypes.c_uint64 * 4)(_MOUNT_ATTR_IDMAP, 0, 0, user_namespace)
        size = ctypes.c_size_t(ctypes.sizeof(attributes))
        flags = _AT_EMPTY_PATH | _AT_RECURSIVE
        result = _libc.syscall(_SYS_MOUNT_SETATTR, tree, b"", flags, ctypes.byref(attributes), size)
        _check(result, f"map the ids of {target}")
        moved = _libc.syscall(
            _SYS_MOVE_MOUNT,
            tree,
            b"",
            -100,
            os.fsencode(target),
            _MOVE_MOUNT_F_EMPTY_PATH,
        )
        _check(moved, f"move_mount to {target}")
    finally:
        os.close(tree)


def unmount(target: str | Path, *, lazy: bool = False) -> None:
    """umount2(2). lazy detaches at once, and frees the mount when its last user is gone."""
    _check(_libc.umount2(os.fsencode(target), MNT_DETACH if lazy else 0), f"umount {target}")


def pivot_root(new_root: str | Path, put_old: str | Path) -> None:
    """pivot_root(2)."""
    _check(_libc.pivot_root(os.fsencode(new_root), os.fsencode(put_old)), f"pivot_root {new_root}")


@contextmanager
def file_system_user(uid: int, gid: int) -> Iterator[None]:
    """setfsuid(2) and setfsgid(2): new files belong to uid and gid, and access is checked as for
    that user.

    Meanwhile the kernel removes the capabilities that override file permissions, but not
    CAP_SYS_ADMIN, so mounting still works.
    """
    before = _libc.setfsuid(-1), _libc.setfsgid(-1)
    _libc.setfsgid(ctypes.c_uint(gid))
    _libc.setfsuid(ctypes.c_uint(uid))
    try:
        yield
    finally:
        _libc.setfsuid(ctypes.c_uint(before[0]))
        _libc.setfsgid(ctypes.c_uint(before[1]))


def set_hostname(name: str) -> None:
    """sethostname(2) in the caller's UTS namespace."""
    raw = name.encode()
    _check(_libc.sethostname(raw, len(raw)), f"sethostname {name}")


PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
_KEYCTL = {"x86_64": 250, "aarch64": 219}
_KEYCTL_JOIN_SESSION_KEYRING = 1


def own_session_keyring() -> None:
    """keyctl(2): leaves the session keyring, whose keys any process that inherits it may use."""
    if (number := _KEYCTL.get(platform.machine())) is not None:
        # A kernel without keys answers ENOSYS; then there is no keyring to leave.
        _libc.syscall(number, _KEYCTL_JOIN_SESSION_KEYRING, None)


def become(uid: int, gid: int) -> None:
    """Changes all user and group ids, and keeps /proc/PID readable for the new user
    (PR_SET_DUMPABLE).

    Supplementary groups are dropped if the user namespace allows it. An unprivileged one does not,
    and then they stay those of the user that created it (user_namespaces(7)).
    """
    with suppress(PermissionError):
        os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    _check(_libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), "prctl(PR_SET_DUMPABLE)")


_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522


def without_rights() -> None:
    """Gives up all capabilities for good, and lets only processes with CAP_SYS_PTRACE inspect this
    one.

    The process keeps the plain rights of its user.
    """
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")
    set_no_new_privileges()
    _check(_libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl(PR_SET_DUMPABLE)")


def set_no_new_privileges() -> None:
    """prctl(PR_SET_NO_NEW_PRIVS): no execve(2) gives this process or its children more rights."""
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")


def set_process_name(name: str) -> None:
    """prctl(PR_SET_NAME): the name that ps and top show (at most 15 bytes)."""
    _check(_libc.prctl(PR_SET_NAME, name.encode()[:15] + b"\0", 0, 0, 0), "prctl(PR_SET_NAME)")


def set_parent_death_signal(signal_number: int) -> None:
    """prctl(PR_SET_PDEATHSIG): the kernel sends this signal when the parent thread ends."""
    _check(_libc.prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def run_beside(pid: int, what: str, work: Callable[[], object], *, wait: bool = True) -> None:
    """Runs work in a new process in the pid and network namespaces of pid, with the rights of this
    process.

    wait: until work has ended; otherwise only until the namespaces are entered, and the process
    stays as a child of pid, which reaps it. what names the work in errors. Raises OSError.
    """
    pidfd = os.pidfd_open(pid)
    helper = os.fork()
    if helper:
        os.close(pidfd)
        if code := os.waitstatus_to_exitcode(os.waitpid(helper, 0)[1]):
            raise OSError(code, f"{what}: {os.strerror(code)}")
        return
    try:
        setns(pidfd, CLONE_NEWPID | CLONE_NEWNET)
        child = os.fork()  # setns(CLONE_NEWPID) applies to children only
        if child:
            os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        # The kernel gives an orphan to the first process of its parent's pid namespace, so the parent
        # of a process that stays must be inside. Outside there may be no process that reaps, as in
        # many containers, and a namespace does not end while it has a zombie.
        if not wait and os.fork():
            os._exit(0)
        work()
        os._exit(0)
    except OSError as error:
        print(f"{what}: {error}", file=sys.stderr, flush=True)
        os._exit(error.errno or 1)
